// The same prompt in another run, below this run's: prompts have the same id in every run.

import { h, oneLine, part } from "../common/dom.js";
import { percent } from "../common/format.js";
import { stackedFlow } from "./final_answers.js";

/** The panel. `complete` turns a visit of the route into one that `stackedFlow` draws; `sentence` describes all visits. */
export function makeOtherRun({ store, complete, sentence }) {
  const element = h("section", { class: "panel riverpanel otherrun", "aria-label": "The same prompt in another run", hidden: true });
  let runs = null; // the other runs, loaded once
  let chosen = null;
  let history = null;
  let loadedKey = "";
  let last = null;

  const draw = part(element, (others, now, visits, missing, width, narrow) => [
    h("div", { class: "ph" }, h("h2", {}, "The same prompt in "),
      h("select", { class: "ifnumber cmpselect", "aria-label": "Another run", "data-key": "beside", on: { change: (event) => choose(event.target.value || null) } },
        h("option", { value: "", selected: now === null }, "another run…"), others.map(({ id, name }) => h("option", { value: id, selected: id === now }, oneLine(name || id, 48)))),
      visits?.length > 0 && h("b", {}, sentence(visits)),
      h("span", { class: "sp" }), visits?.length > 0 && h("a", { class: "link nw", href: `/?${new URLSearchParams({ run: now, view: "prompt", prompt: last.prompt })}` }, "Open it there")),
    missing && h("p", { class: "note", style: { padding: "6px 14px 0" } }, missing),
    visits?.length > 0 && stackedFlow(visits, -1, width, narrow ? 170 : 200),
    visits?.length > 0 && h("p", { class: "note", style: { padding: "4px 14px 0" } }, `right on each visit: ${visits.map((visit) => `step ${visit.step} ${visit.pass_rate === null ? "–" : percent(visit.pass_rate)}`).slice(-10).join(", ")}`),
  ]);

  function choose(run) {
    chosen = run;
    history = null;
    load();
  }

  async function load() {
    const { prompt, mode, width, narrow } = last;
    runs ??= await store.runs().then((list) => list.filter((run) => run.id !== store.run && !run.damaged)).catch(() => null);
    element.hidden = !runs?.length;
    if (element.hidden) return;
    const key = JSON.stringify([chosen, prompt]);
    if (chosen && key !== loadedKey) {
      loadedKey = key;
      const mine = chosen;
      history = await store.promptOf(mine, prompt).catch((error) => ({ error }));
      if (mine !== chosen || prompt !== last.prompt) return;
    }
    const missing = chosen && history?.error ? (history.error.status ? history.error.message : "No response from the server yet.") : "";
    const all = chosen && history && !history.error ? history.visits : [];
    const same = all.filter((visit) => (mode ? visit.mode === "sampled" : !visit.mode));
    draw.update(runs, chosen, (same.length ? same : all.filter((visit) => visit.mode === "sampled")).map(complete), missing, width, narrow);
  }

  return {
    element,
    update(next) {
      last = next;
      load();
    },
  };
}
