// The Live view: a sentence first, then the picture, then the numbers.

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
 * `go(change)` moves the cursor, `link(change)` is the address of such a move, `command(name, args, words)` posts,
 * or is null where nothing can be commanded.
 */
export function makeLive({ store, header, go, link, commands, people, whatIf, askWhatIf }) {
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
  const says = h("section", { class: "panel says", "aria-label": "What it says now" });
  const start = h("section", { class: "panel startup", "aria-label": "Progress" });
  const meters = makeReflectionAndLength({ store, header, go, link });
  const spent = makeStepTime({ store });
  rail.append(alarms.element, meters.element, spent.element, says);
  const grid = h("div", { class: "grid" }, h("div", { class: "maincol" }, charts.element, groups.element), rail);
  const slot = h("div", { class: "slot" });
  const element = h("div", { class: "view viewlive" }, h("div", { class: "rib" }, ribbon.element), verdict, slot, crash, people.element, start, grid);
  const follow = takeLatest(groups.element);
  const followSays = takeLatest(says);

  groups.element.hidden = meters.element.hidden = spent.element.hidden = says.hidden = true; // until there is something to show

  const verdictPart = part(verdict, (sentence, facts, graded, narrow, asking) => [
    h("h1", {}, visible(sentence, 200)),
    h("div", { class: "verdictside" }, legend({ graded, narrow }),
      askWhatIf && h("button", { type: "button", class: "btn sm", "aria-expanded": String(asking), "data-key": "whatif", on: { click: askWhatIf } }, "What if… ", h("kbd", { class: "desk" }, "w"))),
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

  async function showSays(step, answer) {
    const group = answer.groups.find((one) => !one.dead) ?? answer.groups[0];
    if (!group) return show(says);
    const whole = await followSays(store.group(step, group.k)).catch(() => undefined);
    if (whole) show(says, saysPanel(whole, (sample) => open(step)(group, sample.index)));
  }

  let seen = "";
  let overlaid = null;
  let drawn = null;
  async function showStep(step, cursor) {
    const answer = await follow(store.step(step)).catch((error) => ({ error }));
    if (!answer) return;
    groups.element.hidden = Boolean(answer.error);
    says.hidden = Boolean(answer.error);
    if (answer.error) meters.element.hidden = spent.element.hidden = true;
    if (answer.error) return;
    shownStep = answer.step;
    groups.update(answer, { range: header.reward_range ?? range(answer), chosen: cursor.prompt, narrow: isNarrow() });
    meters.update(answer, answer.step);
    spent.update(answer.step);
    if (drawn !== answer) await showSays(step, answer);
    drawn = answer;
  }

  return {
    element,
    ribbon,
    slot,
    update({ cursor, step, newest }) {
      const { status, verdict: words, alarms: list } = store.data;
      if (!status) return;
      people.update(status);
      const narrow = isNarrow();
      const graded = header.binary === false || (header.binary === undefined && drawn !== null && isGraded(drawn.groups));
      const answers = header.prompts_per_step * header.num_generations;
      const other = whatIf?.columns ?? null;
      const key = JSON.stringify([store.version, cursor.step, step, narrow, graded, isOver(status.state)]);
      const changed = key !== seen || other !== overlaid;
      overlaid = other;
      seen = key;
      if (changed) ribbon.update(ribbonState({ store, header, cursor, step, newest, graded, narrow }));
      const doing = phase(status, answers);
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

/** What the ribbon needs to know; the small one above the group lens takes the same. */
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

const range = (answer) => {
  const rewards = answer.groups.flatMap((group) => group.samples.map((sample) => sample.reward)).filter(known);
  return [Math.min(0, ...rewards), Math.max(1e-6, ...rewards)];
};

/** The verdict and its second line. What went wrong comes first; before the first group there is only what is being done. */
function sentences({ data: { status, verdict } }, header, newest, doing) {
  if (isBad(status.state) && !/^(Crashed|Failed)/.test(verdict?.sentence ?? "")) {
    const what = `${status.state === "failed" ? "Failed" : "Crashed"} at step ${status.step}`;
    return [status.reason ? `${what}: ${status.reason}` : `${what}.`, verdict?.sentence ?? ""];
  }
  if (verdict && (newest !== null || isOver(status.state))) return [verdict.sentence, verdict.facts];
  if (newest !== null) return [`Step ${newest} is done.`, ""];
  if (isOver(status.state)) return ["Nothing was recorded.", ""];
  return [`${doing}.`.replace("..", "."), `Each step asks ${header.prompts_per_step} prompts, samples ${header.num_generations} answers to each, scores them, and pushes the model towards those that scored above their own group’s mean.`];
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

/** The best right answer beside its nearest wrong sibling. */
function saysPanel(group, onOpen) {
  const pair = chooseCards(group.samples, null, 2).slice(0, 2);
  const graded = isGraded([group]);
  return [
    h("div", { class: "ph" }, h("h2", {}, "What it says now"), h("span", { class: "sp" }),
      h("span", { class: "i3 mono clip" }, `${oneLine(group.question, 60)}${group.answer === null ? "" : ` = ${oneLine(group.answer, 16)}`}`)),
    h("div", { class: `two ${pair.length}` }, pair.map((sample) => h("div", {},
      h("button", { type: "button", class: `sayhead ${(sample.advantage ?? 0) > 0 ? "up" : "down"}`, on: { click: () => onOpen(sample) } },
        mark(sample), h("b", {}, sample.right === null || graded ? `reward ${fixed(sample.reward)}` : sample.right ? "right" : "wrong"),
        h("span", { class: `mono ${(sample.advantage ?? 0) > 0 ? "pos" : "neg"}` }, signed(sample.advantage))),
      h("pre", { dir: "auto" }, visible(sample.text, 600))))),
    group.dead && h("p", { class: "note" }, `Every group of this step is dead: all answers scored ${percent(group.reward_mean)}.`),
  ];
}
