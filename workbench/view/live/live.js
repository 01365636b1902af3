// The Live view: the verdict, the ribbon and charts of the whole run, the groups of one step, alarms and details beside them.

import { makeAlarms } from "./alarms.js";
import { makeCharts } from "./charts.js";
import { h, keepingFocus, oneLine, part, show, visible } from "../common/dom.js";
import { mark } from "../common/dots.js";
import { isGraded, makeGroups } from "./groups.js";
import { makeReflectionAndLength } from "./reflection_and_length.js";
import { fixed, known, percent, signed } from "../common/format.js";
import { legend, makeRibbon } from "./ribbon.js";
import { chooseCards } from "../common/siblings.js";
import { makeStepTime } from "./step_time.js";
import { isBad, isOver, phase, STAGES } from "../common/run_states.js";
import { takeLatest } from "../common/latest.js";

const isNarrow = () => matchMedia("(max-width: 600px)").matches;

/**
 * `go(change)` moves the cursor, `link(change)` is the address of such a move; `commands` sends commands to the run; `toggleWhatIf`
 * opens and closes the what-if drawer, null where the server cannot be reached.
 */
export function makeLive({ store, header, go, link, commands, pendingRatings, whatIf, toggleWhatIf }) {
  const ribbon = makeRibbon({ onPick: (step) => go({ step }) });
  const charts = makeCharts({ onPick: (step) => go({ step }), name: store.run });
  const open = (step) => (group, sample) => go({ view: "group", step, prompt: group.prompt_id, mode: null, sample });
  let shownStep = null;
  const groups = makeGroups({
    onOpen: (group, sample) => open(shownStep)(group, sample),
    link: (group) => link({ view: "group", step: shownStep, prompt: group.prompt_id, mode: null, sample: null }),
  });
  const verdict = h("div", { class: "verdict" });
  const crash = h("section", { class: "crash" });
  const rail = h("div", { class: "rail" });
  const alarms = makeAlarms({ store, go, link, commands });
  const currentSamples = h("section", { class: "panel currentsamples", "aria-label": "Two samples of this step" });
  const start = h("section", { class: "panel startup", "aria-label": "Progress" });
  const reflection = makeReflectionAndLength({ store, header, go, link });
  const stepTime = makeStepTime({ store });
  rail.append(alarms.element, reflection.element, stepTime.element, currentSamples);
  const grid = h("div", { class: "grid" }, h("div", { class: "maincol" }, charts.element, groups.element), rail);
  const slot = h("div", { class: "slot" });
  const element = h("div", { class: "view viewlive" }, h("div", { class: "rib" }, ribbon.element), verdict, slot, crash, pendingRatings.element, start, grid);
  const follow = takeLatest(groups.element);
  const followSamples = takeLatest(currentSamples);

  groups.element.hidden = reflection.element.hidden = stepTime.element.hidden = currentSamples.hidden = true; // until there is something to show

  const verdictPart = part(verdict, (sentence, facts, graded, narrow, whatIfOpen) => [
    h("h1", {}, visible(sentence, 200)),
    h("div", { class: "verdictside" }, legend({ graded, narrow }),
      toggleWhatIf && h("button", { type: "button", class: "btn sm", "aria-expanded": String(whatIfOpen), "data-key": "whatif", on: { click: toggleWhatIf } }, "What if… ", h("kbd", { class: "desk" }, "w"))),
    facts && h("p", {}, visible(facts, 600)),
  ]);
  const crashPart = part(crash, (log, resume) => [
    log?.length > 0 && h("h2", {}, "Last lines of the log"),
    log?.length > 0 && h("pre", { class: "logtail", tabindex: 0, "aria-label": "Last lines of the log" }, visible(log.join("\n"), 8000)),
    h("div", { class: "acts" },
      commands.can && resume !== null && h("button", { type: "button", class: "btn pri", on: { click: () => commands.send("resume", {}, "Starts again from the last checkpoint.") } }, resume === undefined ? "Resume from the last checkpoint" : `Resume from step ${resume}`),
      h("button", { type: "button", class: "btn", on: { click: openLog } }, "Open the log")),
  ]);

  async function openLog() {
    const { lines } = await store.log(400);
    const sheet = h("dialog", { class: "sheet wide", "aria-label": "Log" }, h("h2", {}, "worker.log, last lines"),
      h("pre", { class: "logtail tall", tabindex: 0 }, visible(lines.join("\n"), 200_000)),
      h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
    element.append(sheet);
    sheet.addEventListener("close", () => sheet.remove());
    sheet.showModal();
    sheet.querySelector("pre").scrollTop = 1e9;
  }

  async function showSamples({ step, groups: rows }) {
    const row = rows.find((one) => !one.dead) ?? rows[0];
    if (!row) return show(currentSamples);
    const group = await followSamples(store.group(step, row.k)).catch(() => undefined);
    if (group) show(currentSamples, samplesPanel(group, (sample) => open(step)(group, sample.index)));
  }

  let seen = "";
  let overlaid = null;
  let drawn = null;
  async function showStep(step, cursor) {
    const found = await follow(store.step(step)).catch((error) => ({ error }));
    if (!found) return;
    groups.element.hidden = currentSamples.hidden = Boolean(found.error);
    if (found.error) {
      reflection.element.hidden = stepTime.element.hidden = true;
      return;
    }
    shownStep = found.step;
    groups.update(found, { range: header.reward_range ?? range(found), chosen: cursor.prompt, narrow: isNarrow() });
    reflection.update(found, found.step);
    stepTime.update(found.step);
    if (drawn !== found) await showSamples(found);
    drawn = found;
  }

  return {
    element,
    ribbon,
    slot,
    update({ cursor, step, newest }) {
      const { status, verdict: words, alarms: list } = store.data;
      if (!status) return;
      pendingRatings.update(status);
      const narrow = isNarrow();
      const graded = header.binary === false || (header.binary === undefined && drawn !== null && isGraded(drawn.groups));
      const samples = header.prompts_per_step * header.num_generations;
      const other = whatIf?.columns ?? null;
      const key = JSON.stringify([store.version, cursor.step, step, narrow, graded, isOver(status.state)]);
      const changed = key !== seen || other !== overlaid;
      overlaid = other;
      seen = key;
      if (changed) ribbon.update(ribbonState({ store, header, cursor, step, newest, graded, narrow }));
      const doing = phase(status, samples);
      ribbon.say(newest === null ? "" : doing);
      verdictPart.update(...sentences(store, header, newest, doing), graded, narrow, cursor.whatif !== null);
      crash.hidden = !isBad(status.state);
      if (!crash.hidden) crashPart.update(status.log, status.resume_step);
      start.hidden = newest !== null || isOver(status.state);
      if (!start.hidden) keepingFocus(start, () => show(start, progress(status, doing)));
      grid.hidden = newest === null;
      alarms.update(list);
      if (newest === null) return;
      if (changed) charts.update({ store, header, step: cursor.step === null ? null : step, other });
      showStep(step, cursor);
    },
    /** The groups on screen, best first, for j and k. */
    groups: () => drawn?.groups ?? [],
    showAlarms: () => alarms.element.scrollIntoView({ block: "start" }),
  };
}

/** The state of a ribbon; the small one above the other views takes the same. */
export const ribbonState = ({ store, header, cursor, step, newest, graded, narrow }) => ({
  store,
  total: Math.max(store.data.status.steps ?? 0, (newest ?? -1) + 1, 1),
  newest,
  step,
  live: cursor.step === null,
  over: isOver(store.data.status.state),
  ended: isBad(store.data.status.state) || store.data.status.state === "interrupted",
  groups: header.prompts_per_step,
  graded,
  narrow,
});

const range = ({ groups }) => {
  const rewards = groups.flatMap((group) => group.samples.map((sample) => sample.reward)).filter(known);
  return [Math.min(0, ...rewards), Math.max(1e-6, ...rewards)];
};

/** The verdict and its second line: a failure first; before the first recorded step, what the worker is doing. */
function sentences({ data: { status, verdict } }, header, newest, doing) {
  if (isBad(status.state) && !/^(Crashed|Failed)/.test(verdict?.sentence ?? "")) {
    const what = `${status.state === "failed" ? "Failed" : "Crashed"} at step ${status.step}`;
    return [status.reason ? `${what}: ${status.reason}` : `${what}.`, verdict?.sentence ?? ""];
  }
  if (verdict && (newest !== null || isOver(status.state))) return [verdict.sentence, verdict.facts];
  if (newest !== null) return [`Step ${newest} is done.`, ""];
  if (isOver(status.state)) return ["Nothing was recorded.", ""];
  return [`${doing}.`.replace("..", "."), `Each step takes ${header.prompts_per_step} prompts, draws ${header.num_generations} samples of each, scores them, and makes those likelier that scored above their own group’s mean.`];
}

function progress({ state, waits_for: ahead, phase: now, phase_done: done, phase_total: total }, doing) {
  const share = known(done) && total ? done / total : 0;
  const at = STAGES.findIndex(([, phases]) => phases.includes(now));
  return [
    h("ol", { class: "stages", "aria-label": "A step, stage by stage" }, STAGES.map(([word], i) => h("li", { class: i === at ? "on" : i < at ? "done" : "", "aria-current": i === at ? "step" : null }, word))),
    h("div", { class: "progress", role: "progressbar", "aria-label": doing, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100) }, h("span", { style: { width: `${share * 100}%` } })),
    state === "queued" && ahead?.length > 0 && h("p", {}, "It begins by itself after ", ahead.map(({ id, name, here }, i) => [i > 0 && ", ", here ? h("a", { class: "link", href: `?${new URLSearchParams({ run: id })}`, "data-key": `ahead-${id}` }, oneLine(name, 60)) : h("b", {}, oneLine(name, 60))]), "."),
    h("p", { class: "note" }, "The first groups appear here as soon as they are scored. Closing this page does not stop the run."),
  ];
}

/** A right sample beside its nearest wrong one. */
function samplesPanel(group, onOpen) {
  const pair = chooseCards(group.samples, null, 2).slice(0, 2);
  const graded = isGraded([group]);
  return [
    h("div", { class: "ph" }, h("h2", {}, "Two samples of this step"), h("span", { class: "sp" }),
      h("span", { class: "i3 mono clip" }, `${oneLine(group.question, 60)}${group.answer === null ? "" : ` = ${oneLine(group.answer, 16)}`}`)),
    h("div", { class: `two ${pair.length}` }, pair.map((sample) => h("div", {},
      h("button", { type: "button", class: `samplehead ${(sample.advantage ?? 0) > 0 ? "up" : "down"}`, on: { click: () => onOpen(sample) } },
        mark(sample), h("b", {}, sample.right === null || graded ? `reward ${fixed(sample.reward)}` : sample.right ? "right" : "wrong"),
        h("span", { class: `mono ${(sample.advantage ?? 0) > 0 ? "pos" : "neg"}` }, signed(sample.advantage))),
      h("pre", { dir: "auto" }, visible(sample.text, 600))))),
    group.dead && h("p", { class: "note" }, `Every group of this step is dead: all samples scored ${percent(group.reward_mean)}.`),
  ];
}
