// Samples whose ratings a run waits for, on the Live page: one prompt at a time, with the time that is left.

import { h, oneLine, show, visible } from "../common/dom.js";
import { count } from "../common/format.js";
import { ratingChip, ratingRow } from "../common/ratings.js";

const known = (value) => value !== null && value !== undefined;
const isRated = (sample) => known(sample.thumb) || known(sample.place);
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** `rater` from ratings.js; `goOn()` sends the command not to wait any longer. */
export function makePendingRatings({ store, rater, goOn }) {
  const element = h("section", { class: "panel pendingratings", "aria-label": "Samples to rate", hidden: true });
  const left = h("b", { class: "mono", role: "timer" });
  let waiting = null;
  let shownKey = "";
  let at = 0;
  let picked = 0;
  let timer = null;

  const group = () => waiting?.groups[at] ?? null;
  const unrated = () => waiting.groups.flatMap((one) => one.samples).filter((sample) => !isRated(sample)).length;

  function tick() {
    if (waiting) left.textContent = clock(Math.max(0, waiting.until - Date.now() / 1000));
  }

  function pick(index) {
    picked = index;
    if (rater.ranking) return rater.place(group(), index);
    paint();
  }

  function card(sample) {
    return h("article", { class: `card ${sample.index === picked ? "picked" : ""}` },
      h("button", { type: "button", class: "hd", "aria-pressed": String(sample.index === picked), "data-key": `wait-${sample.index}`, on: { click: () => pick(sample.index) } },
        h("b", {}, `#${sample.index + 1}`), h("span", { class: "i3" }, count(sample.length, "token")), h("span", { class: "sp" }), ratingChip(sample)),
      h("pre", { dir: "auto" }, visible(sample.text, 4000)));
  }

  function paint() {
    const one = group();
    element.hidden = !one;
    if (!one) return;
    const key = element.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
    const open = unrated();
    const step = (by) => h("button", { type: "button", "aria-label": by < 0 ? "Prompt back" : "Prompt on", "data-key": `wait-${by}`, disabled: at + by < 0 || at + by >= waiting.groups.length, on: { click: () => walk(by) } }, by < 0 ? "‹" : "›");
    show(element,
      h("div", { class: "ph" },
        h("h2", {}, "The run waits for your ratings"),
        h("span", { class: "note" }, open ? `${count(open, "sample")} of step ${waiting.step} without one. It continues by itself in ` : "All rated: it continues. ", open > 0 && left),
        h("span", { class: "sp" }),
        rater.can && h("button", { type: "button", class: "btn sm", "data-key": "wait-goon", on: { click: goOn } }, "Continue without the rest")),
      h("div", { class: "pendingprompt" },
        h("span", { class: "step", role: "group", "aria-label": "Prompt" }, step(-1), h("b", {}, `Prompt ${at + 1} of ${waiting.groups.length}`), step(1)),
        h("h3", { dir: "auto" }, visible(one.question, 600)),
        one.answer !== null && h("span", { class: "reference i2" }, "reference answer ", h("b", { class: "mono" }, oneLine(one.answer, 80)))),
      h("div", { class: "cards nall" }, one.samples.map(card)),
      ratingRow(rater, one, picked));
    tick();
    if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  }

  function walk(by) {
    if (!waiting) return;
    at = Math.max(0, Math.min(waiting.groups.length - 1, at + by));
    picked = 0;
    rater.stop();
    paint();
  }

  /** To the next unrated sample, in the next group where this one has none left. */
  function next() {
    const one = group();
    const after = one.samples.find((sample) => sample.index > picked && !isRated(sample)) ?? one.samples.find((sample) => !isRated(sample));
    if (after) picked = after.index;
    else if (at + 1 < waiting.groups.length) walk(1);
  }

  return {
    element,
    /** Whether there is something to rate now. */
    get active() {
      return waiting !== null;
    },
    paint,
    walk,
    async update(status) {
      const key = status.phase === "rate" && known(status.until) ? `${status.step}/${status.until}` : "";
      if (key === shownKey) return;
      shownKey = key;
      const found = key ? await store.waiting().catch(() => null) : null;
      if (key !== shownKey) return;
      waiting = found;
      at = picked = 0;
      clearInterval(timer);
      if (waiting) timer = setInterval(tick, 1000);
      paint();
    },
    pickNumber: (number) => number <= (group()?.samples.length ?? 0) && pick(group().samples[number - 1].index),
    thumb(good) {
      const one = group();
      if (!one) return;
      rater.thumb(one, picked, good);
      next();
      paint();
    },
    undo: () => rater.undo(group()),
  };
}
