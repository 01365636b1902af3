// The open alarms of a run as cards: claim, evidence, and remedies that one click applies.

import { h, oneLine, part, show, visible } from "../common/dom.js";
import { mark } from "../common/dots.js";
import { forkLink } from "../common/fork_link.js";
import { count, fixed, signed } from "../common/format.js";

const WORDS = { critical: "Act now", warning: "Warning", info: "Observation" };
const MARKS = { critical: "!", warning: "!", info: "i" };

/** The badge of a level; an unknown level counts as an observation. */
export const badge = (level) => h("span", { class: `badge ${level in WORDS ? level : "info"}`, role: "img", "aria-label": WORDS[level] ?? WORDS.info }, MARKS[level] ?? "i");

/** Warnings and critical alarms that are not muted. */
export const pressing = (alarms) => alarms.filter((alarm) => alarm.level !== "info" && !alarm.muted);

/** The panel of alarms. */
export function makeAlarms({ store, go, link, commands }) {
  const element = h("section", { class: "panel alarms", "aria-label": "Alarms" });
  let unfolded = false;

  const panel = part(element, (alarms, open) => {
    const shown = alarms.filter((alarm) => !alarm.muted);
    const muted = alarms.filter((alarm) => alarm.muted);
    return [
      shown.map((alarm) => card(alarm)),
      muted.length > 0 && h("div", { class: "muted" },
        h("button", { type: "button", class: "link quiet", "data-key": "muted", "aria-expanded": String(open), on: { click: () => ((unfolded = !unfolded), panel.update(alarms, unfolded, commands.alive)) } }, `${count(muted.length, "alarm")} muted ${open ? "▴" : "▾"}`)),
      open && muted.map((alarm) => card(alarm)),
    ];
  });

  function card(alarm) {
    const title = h("span", alarm.condition ? { class: "q", tabindex: 0, "data-tip": `alarm-${alarm.name}`, "data-key": `tip-alarm-${alarm.name}` } : {}, oneLine(alarm.claim, 120));
    return h("article", { class: `alarm ${alarm.level} ${alarm.muted ? "quietly" : ""}`, "data-alarm": alarm.name },
      h("div", { class: "alarmhead" }, h("h3", {}, badge(alarm.level), title),
        commands.can && h("button", { type: "button", class: "btn sm ghost", "data-key": `mute-${alarm.id}`, on: { click: () => commands.mute(alarm.name, !alarm.muted) } }, alarm.muted ? "Unmute" : "Mute")),
      h("p", {}, visible(alarm.evidence, 800)),
      h("div", { class: "acts" },
        alarm.samples?.length > 0 && h("button", { type: "button", class: "btn sm", "data-key": `see-${alarm.id}`, on: { click: () => seeSamples(alarm) } }, alarm.samples.length === 1 ? "See the sample" : `See ${alarm.samples.length} samples`),
        commands.can && (alarm.remedies ?? []).slice(0, 2).map((remedy) => act(alarm, remedy))));
  }

  function act(alarm, remedy) {
    const words = oneLine(remedy.label, 60);
    if (remedy.fork) return h("a", { class: "btn sm", "data-key": `${alarm.id}-${remedy.label}`, href: forkLink(store.run, remedy.step ?? 0, remedy.fork), title: "Opens New run with this filled in; nothing starts yet." }, words);
    if (!commands.alive && remedy.command === "set") return h("a", { class: "btn sm", "data-key": `${alarm.id}-${remedy.label}`, href: forkLink(store.run, alarm.since, remedy.args), title: "The run is over: opens New run with a fork of it filled in." }, `Fork: ${words}`);
    return commands.alive && h("button", { type: "button", class: "btn sm", "data-key": `${alarm.id}-${remedy.label}`, on: { click: () => commands.send(remedy.command, remedy.args ?? {}, `${words}: from the next step.`) } }, words);
  }

  async function seeSamples(alarm) {
    const list = h("div", { class: "seen", tabindex: 0, "aria-label": "Samples" }, h("p", { class: "i3" }, "Fetching the samples…"));
    const sheet = h("dialog", { class: "sheet wide", "aria-label": oneLine(alarm.claim, 80) },
      h("h2", {}, oneLine(alarm.claim, 120), h("span", { class: "i3 aside" }, ` step ${alarm.samples[0].step}`)),
      list,
      h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
    element.append(sheet);
    sheet.addEventListener("close", () => sheet.remove());
    sheet.showModal();
    const groups = await Promise.all(alarm.samples.map(({ step, group }) => store.group(step, group).catch((error) => ({ error }))));
    show(list, alarm.samples.map((sample, i) => sampleArticle(sample, groups[i], sheet)));
  }

  function sampleArticle(at, group, sheet) {
    if (group.error) return h("p", { class: "i3" }, visible(group.error.message, 300));
    const sample = group.samples.find((one) => one.index === at.index);
    if (!sample) return null;
    const to = { view: "group", step: at.step, prompt: at.prompt_id, sample: at.index, mode: null };
    const reasons = Object.entries(sample.reasons ?? {});
    return h("article", {},
      h("h3", { class: "mono" }, oneLine(group.question, 60), group.answer !== null && h("span", { class: "i3" }, ` = ${oneLine(group.answer, 16)}`)),
      h("p", { class: "facts" }, mark(sample), h("b", {}, sample.right === null ? "" : sample.right ? "right" : "wrong"), h("span", {}, `reward ${fixed(sample.reward)}`), h("span", { class: `mono ${(sample.advantage ?? 0) > 0 ? "pos" : (sample.advantage ?? 0) < 0 ? "neg" : ""}` }, `A ${signed(sample.advantage)}`), h("span", { class: "i3" }, count(sample.length, "token"), sample.finish_reason === "length" && ", cut")),
      reasons.slice(0, 2).map(([name, words]) => h("p", { class: "reason" }, `${oneLine(name, 40)}: ${visible(words, 300)}`)),
      h("pre", { dir: "auto", tabindex: 0, "aria-label": "The sample" }, visible(sample.text, 3000)),
      h("a", { class: "link", href: link(to), on: { click: (event) => (event.preventDefault(), sheet.close(), go(to)) } }, "Open its group"));
  }

  return {
    element,
    update(alarms) {
      element.hidden = !alarms.length;
      panel.update(alarms.map(({ step, figures, ...row }) => row), unfolded, commands.alive);
    },
  };
}
