// The same prompt in another run, below its own river: prompts have the same id in every run.

import { h, oneLine, part } from "../common/dom.js";
import { percent } from "../common/format.js";
import { river } from "./final_answers.js";

/** A panel. `complete` makes a visit of the route what the river draws. */
export function makeOtherRun({ store, complete, sentence }) {
  const element = h("section", { class: "panel riverpanel beside", "aria-label": "The same prompt in another run", hidden: true });
  let runs = null; // the other runs, asked for once
  let chosen = null;
  let answer = null;
  let asked = "";
  let last = null;

  const draw = part(element, (others, now, visits, missing, width, narrow) => [
    h("div", { class: "ph" }, h("h2", {}, "The same prompt in "),
      h("select", { class: "ifnumber cmpselect", "aria-label": "Another run", "data-key": "beside", on: { change: (event) => choose(event.target.value || null) } },
        h("option", { value: "", selected: now === null }, "another run…"), others.map(({ id, name }) => h("option", { value: id, selected: id === now }, oneLine(name || id, 48)))),
      visits?.length > 0 && h("b", {}, sentence(visits)),
      h("span", { class: "sp" }), visits?.length > 0 && h("a", { class: "link nw", href: `/?${new URLSearchParams({ run: now, view: "prompt", prompt: last.prompt })}` }, "Open it there")),
    missing && h("p", { class: "note", style: { padding: "6px 14px 0" } }, missing),
    visits?.length > 0 && river(visits, -1, width, narrow ? 170 : 200),
    visits?.length > 0 && h("p", { class: "note", style: { padding: "4px 14px 0" } }, `right on each visit: ${visits.map((visit) => `step ${visit.step} ${visit.pass_rate === null ? "–" : percent(visit.pass_rate)}`).slice(-10).join(", ")}`),
  ]);

  function choose(run) {
    chosen = run;
    answer = null;
    look();
  }

  async function look() {
    const { prompt, mode, width, narrow } = last;
    runs ??= await store.runs().then((list) => list.filter((run) => run.id !== store.run && !run.damaged)).catch(() => null);
    element.hidden = !runs?.length;
    if (element.hidden) return;
    const key = JSON.stringify([chosen, prompt]);
    if (chosen && key !== asked) {
      asked = key;
      const mine = chosen;
      answer = await store.promptOf(mine, prompt).catch((error) => ({ error }));
      if (mine !== chosen || prompt !== last.prompt) return;
    }
    const missing = chosen && answer?.error ? (answer.error.status ? answer.error.message : "No answer from the server yet.") : "";
    const all = chosen && answer && !answer.error ? answer.visits : [];
    const same = all.filter((visit) => (mode ? visit.mode === "sampled" : !visit.mode));
    draw.update(runs, chosen, (same.length ? same : all.filter((visit) => visit.mode === "sampled")).map(complete), missing, width, narrow);
  }

  return {
    element,
    update(next) {
      last = next;
      look();
    },
  };
}
