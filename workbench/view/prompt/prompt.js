// The Prompt view: one prompt on every visit. Its final answers as a stacked flow, then length, entropy and distinct final answers a visit,
// then the best, the median and the worst sample of the first visit and of the cursor's.

import { makeOtherRun } from "./other_run.js";
import { h, oneLine, s, show, visible } from "../common/dom.js";
import { mark } from "../common/dots.js";
import { count, fixed, known, percent, plain } from "../common/format.js";
import { tallyFinal, stackedFlow, WIDEST } from "./final_answers.js";
import { roundUp } from "../common/scale.js";
import { term } from "../common/tooltip.js";
import { takeLatest } from "../common/latest.js";

/** Up to this many visits, the flow stands beside the samples instead of above them. */
const FEW = 2;
const isNarrow = () => matchMedia("(max-width: 600px)").matches;

/** `go(change)` moves the cursor. */
export function makePrompt({ store, header, go, link }) {
  const head = h("div", { class: "head" });
  const side = h("section", { class: "panel promptlist", "aria-label": "Prompts" });
  const flow = h("section", { class: "panel riverpanel", "aria-label": "Final answers over time" });
  const strip = h("section", { class: "panel film", "aria-label": "Samples then and now" });
  const missing = h("p", { class: "missing", role: "status", hidden: true });
  const otherRun = makeOtherRun({ store, complete: completed, sentence });
  const column = h("div", { class: "maincol" }, flow, strip, otherRun.element);
  const body = h("div", { class: "overtime" }, side, column);
  const element = h("div", { class: "view viewprompt" }, head, missing, body);
  const follow = takeLatest(body);
  let shown = null;
  let lists = { step: [], watched: [] };

  function paint() {
    const { history, visits, at, cursor } = shown;
    const narrow = isNarrow();
    const visit = visits[at];
    const first = visits[0];
    show(head,
      h("h1", { dir: "auto" }, visible(history.question, 300)),
      h("span", { class: "reference i2" }, history.answer !== null && ["reference answer ", h("b", { class: "mono" }, oneLine(history.answer, 80))]),
      h("span", { class: "sp" }),
      !visit.mode && h("a", { class: "btn", href: link({ view: "group", step: visit.step, mode: visit.mode }), on: { click: (event) => (event.preventDefault(), go({ view: "group", step: visit.step, mode: visit.mode })) } }, `Open the group of step ${visit.step} `, h("kbd", { class: "desk" }, "enter")));
    column.classList.toggle("few", visits.length <= FEW && !narrow);
    const width = Math.max(300, flow.clientWidth - 28);
    show(flow,
      h("div", { class: "ph" }, h("h2", {}, sentence(visits)), h("span", { class: "sp" }), visits.length > FEW && h("span", { class: "note desk" }, "a column per visit, a band per final answer; height = share of the group")),
      visits.some((one) => one.answers?.length) ? stackedFlow(visits, at, width, narrow ? 190 : 230) : null,
      multiples(visits, at, width, narrow),
      visits.length === 1 && !visit.mode && lists.watched.length > 0 && h("p", { class: "note followhint" }, "Watched prompts come again at every evaluation: ",
        h("button", { type: "button", class: "link", "data-key": "follow-watched", on: { click: () => go({ prompt: lists.watched[0].prompt_id, mode: "sampled" }) } }, "follow one from the first step")));
    show(strip,
      h("div", { class: "ph" }, h("h2", {}, visits.length > 1 && at > 0 ? `Step ${first.step} beside step ${visit.step}` : "Its samples"), h("span", { class: "sp" }), h("span", { class: "note desk" }, "the best, the median and the worst sample by reward")),
      h("div", { class: "frames" }, (at > 0 ? [first, visit] : [visit]).map((one) => h("div", { class: "filmrow" },
        h("div", { class: "filmhead" }, h("b", {}, `Step ${one.step}`), h("span", {}, `${known(one.pass_rate) ? `${percent(one.pass_rate)} right` : `mean ${fixed(one.reward_mean)}`}`)),
        ["best", "median", "worst"].map((which) => frame(which, one[which], one, { go, cursor }))))));
    otherRun.update({ prompt: cursor.prompt, mode: visit.mode, width, narrow });
    paintLists();
  }

  function paintLists() {
    const group = (title, groups, step, mode) => groups.length > 0 && [
      h("h2", {}, title),
      h("ul", {}, groups.map((one) => {
        const on = one.prompt_id === shown?.cursor.prompt;
        const right = one.samples.filter((sample) => sample.right).length;
        return h("li", {}, h("a", { class: on ? "on" : "", "aria-current": on ? "true" : null, href: link({ view: "prompt", prompt: one.prompt_id, step, mode }), "data-key": `prompt-${mode ?? "train"}-${one.prompt_id}`,
          on: { click: (event) => (event.preventDefault(), go({ prompt: one.prompt_id, mode })) } }, h("span", { class: "mono clip" }, oneLine(one.question, 48)), h("span", { class: "i3 nw" }, one.samples.some((sample) => sample.right === null) ? fixed(one.reward_mean) : `${right}/${one.n}`)));
      }))];
    side.classList.toggle("picking", isNarrow());
    show(side, isNarrow() ? picker() : [group(lists.title ?? "This step", lists.step, lists.at, null), group("Watched, held out", lists.watched, lists.checked, "sampled")]);
  }

  /** The lists on a phone. */
  function picker() {
    const options = (groups, mode) => groups.map((one) => h("option", { value: `${mode ?? ""} ${one.prompt_id}`, selected: one.prompt_id === shown?.cursor.prompt }, oneLine(one.question, 48)));
    const pick = (event) => {
      const [mode, prompt] = event.target.value.split(" ");
      go({ prompt, mode: mode || null });
    };
    const here = [...lists.step, ...lists.watched].some((one) => one.prompt_id === shown?.cursor.prompt);
    return h("label", { class: "i3" }, "Prompt ", h("select", { class: "ifnumber", "data-key": "prompt-picker", on: { change: pick } },
      !here && h("option", { selected: true, disabled: true }, "another"),
      h("optgroup", { label: lists.title ?? "This step" }, options(lists.step, null)),
      lists.watched.length > 0 && h("optgroup", { label: "Watched, held out" }, options(lists.watched, "sampled"))));
  }

  new ResizeObserver(() => shown && element.offsetParent && paint()).observe(flow);
  element.addEventListener("click", (event) => {
    const column = event.target.closest("[data-visit]");
    if (column && shown && !otherRun.element.contains(column)) go({ step: shown.visits[Number(column.dataset.visit)].step });
  });

  return {
    element,
    async update({ cursor, step }) {
      const say = (words) => {
        shown = null;
        missing.textContent = words;
        missing.hidden = false;
        body.hidden = true;
        show(head);
      };
      if (step === null) return say("No prompt yet. The first appears after the first step.");
      try {
        const checked = store.data.evaluations.filter((one) => one.mode === "sampled").at(-1)?.step ?? null;
        const [here, watched] = await Promise.all([store.step(step).catch(() => ({ groups: [] })), checked === null ? { groups: [] } : store.step(checked, "sampled").catch(() => ({ groups: [] }))]);
        lists = { step: here.groups, at: step, title: `Step ${step}`, watched: watched.groups.filter((group) => group.n > 1), checked };
        const prompt = cursor.prompt ?? lists.step[0]?.prompt_id ?? lists.watched[0]?.prompt_id;
        if (!prompt) return say("This step has no groups.");
        const history = shown?.history.prompt_id === prompt && shown.newest === store.newest ? shown.history : await follow(store.prompt(prompt));
        if (!history) return;
        const train = history.visits.filter((visit) => !visit.mode);
        const visits = (train.length ? train : history.visits.filter((visit) => visit.mode === "sampled")).sort((a, b) => a.step - b.step).map(completed);
        if (!visits.length) return say("This prompt was not visited yet.");
        if (shown?.history === history && shown.from === cursor && shown.step === step) return;
        let at = cursor.step === null ? visits.length - 1 : visits.findLastIndex((visit) => visit.step <= step);
        if (at < 0) at = 0;
        shown = { history, visits, at, cursor: { ...cursor, prompt }, from: cursor, step, newest: store.newest };
      } catch (error) {
        return say(error.status ? error.message : "No response from the server yet.");
      }
      missing.hidden = true;
      body.hidden = false;
      const focus = element.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
      paint();
      if (focus) element.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
    },
    /** The step of the visit `by` columns away, or null. */
    visit: (by) => (shown ? (shown.visits[Math.max(0, Math.min(shown.visits.length - 1, shown.at + by))]?.step ?? null) : null),
    /** The prompt `by` rows away in the list. */
    neighbour(by) {
      const all = [...lists.step.map((one) => [one.prompt_id, null]), ...lists.watched.map((one) => [one.prompt_id, "sampled"])];
      const at = all.findIndex(([id]) => id === shown?.cursor.prompt);
      return all[Math.max(0, Math.min(all.length - 1, at + by))] ?? null;
    },
    get shown() {
      return shown;
    },
    header,
  };
}

// A visit with figures from its samples: final answers, mean entropy and length, the best, the median and the worst sample.
function completed(visit) {
  const samples = visit.samples ?? [];
  const ranked = [...samples].filter((sample) => known(sample.reward)).sort((a, b) => b.reward - a.reward || a.length - b.length);
  const mean = (name) => {
    const there = samples.map((sample) => sample[name]).filter(known);
    return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null;
  };
  const [best, median, worst] = [ranked[0], ranked[ranked.length >> 1], ranked[ranked.length - 1]].map((sample) => sample && { index: sample.i, ...sample });
  return { answers: tallyFinal(samples), entropy_mean: mean("entropy"), length_mean: mean("length"), best, median, worst, ...visit, mode: visit.mode || null };
}

/** "4 % to 92 % right in 7 visits." */
function sentence(visits) {
  const [first, last] = [visits[0], visits[visits.length - 1]];
  const say = (visit) => (known(visit.pass_rate) ? `${percent(visit.pass_rate)} right` : `mean reward ${fixed(visit.reward_mean)}`);
  return visits.length === 1 ? `Seen once: ${say(first)}.` : `${say(first).replace(/ right$/, "")} → ${say(last)} in ${count(visits.length, "visit")}.`;
}

// Small multiples on the x axis of the flow: length, entropy and distinct final answers a visit.
function multiples(visits, at, width, narrow) {
  const distinct = visits.map((visit) => (visit.answers.some(([final]) => final !== undefined) ? visit.answers.length : null));
  const rows = [
    ["completions/mean_length", "Length", visits.map((visit) => visit.length_mean), (v) => `${Math.round(v)} tokens`, ""],
    ["entropy", "Entropy", visits.map((visit) => visit.entropy_mean ?? null), (v) => `${fixed(v)} nats`, "plum"],
    [null, "Distinct answers", distinct, (v) => plain(v), ""],
  ];
  return h("div", { class: "multiples" }, rows.filter(([, , values]) => values.some(known)).map(([metric, title, values, say, look]) =>
    h("div", { class: "multiple" }, h("span", { class: "lab" }, metric ? term(metric, title) : title), line(values, at, width, say, look, narrow))));
}

function line(values, at, width, say, look, narrow) {
  const [left, right, height] = [44, 116, 40];
  const high = roundUp(Math.max(...values.filter(known))) || 1;
  const step = Math.min(WIDEST, (width - left - right) / values.length);
  width = left + step * values.length + right;
  const x = (v) => left + (v + 0.5) * step;
  const y = (value) => 6 + (1 - value / high) * (height - 10);
  const there = values.map((value, v) => [v, value]).filter(([, value]) => known(value));
  const last = there[there.length - 1];
  return s("svg", { width, height, class: `mini ${look}`, "aria-hidden": "true" },
    s("line", { x1: left - 4, x2: width - right + 4, y1: y(0), y2: y(0), class: "axis" }),
    !narrow && s("text", { x: left - 9, y: y(high) + 6, "text-anchor": "end" }, plain(high)),
    s("path", { d: there.map(([v, value], i) => `${i ? "L" : "M"}${x(v).toFixed(1)} ${y(value).toFixed(1)}`).join(""), class: "trace" }),
    known(values[at]) && s("circle", { cx: x(at), cy: y(values[at]), r: 3.2, class: "tracepoint" }),
    last && s("text", { x: width - right + 8, y: y(last[1]) + 4, class: "endname" }, say(last[1])));
}

function frame(which, sample, visit, { go, cursor }) {
  if (!sample) return h("div", { class: "frame empty note" }, "–");
  const name = which.charAt(0).toUpperCase() + which.slice(1);
  const open = () => go({ view: "group", step: visit.step, mode: visit.mode, prompt: cursor.prompt, sample: sample.index });
  return h("article", { class: "frame" },
    h("button", { type: "button", class: "hd", "data-key": `frame-${visit.step}-${which}`, on: { click: open } }, mark(sample), h("b", {}, name), h("span", { class: "sp" }), h("span", { class: "mono i2" }, fixed(sample.reward))),
    h("pre", { dir: "auto" }, visible(sample.text, 700)));
}
