// Where a step's time went: one bar of its phases in their order, and what overlapped the next step's sampling.

import { h, part } from "../common/dom.js";
import { duration, known } from "../common/format.js";

/** [phase, its label, its shade]; all other phases are the rest. */
const PHASES = [
  ["sample", "sampling", "var(--ink3)"],
  ["score", "scoring", "var(--line2)"],
  ["update", "update", "var(--ink2)"],
];
const SMALLEST = 0.02; // share of the step; shorter phases count as the rest

export function makeStepTime({ store }) {
  const element = h("section", { class: "panel steptime", "aria-label": "Where the step’s time went" });
  const draw = part(element, (parts, total, overlapped, step) => [
    h("div", { class: "ph" }, h("h2", {}, "Where the time went"), h("span", { class: "sp" }), h("span", { class: "i3" }, `step ${step}, ${duration(total)}`)),
    h("div", { class: "timebar", "aria-hidden": "true" }, parts.map(([, seconds, shade]) => h("span", { style: { "flex-grow": String(seconds / total * 100), background: shade } }))),
    h("ul", {}, parts.map(([name, seconds, shade]) => h("li", {}, h("i", { style: { background: shade } }), `${name} ${duration(seconds)}`))),
    known(overlapped) && h("p", { class: "note" }, `Post-update log-probabilities and recording took ${duration(overlapped)} beside the next step’s sampling.`),
  ]);
  return {
    element,
    /** `step`: the step of the cursor. */
    update(step) {
      const at = store.data.steps.indexOf(step);
      const of = (name) => store.data.metrics[name]?.[at];
      const total = of("step_time");
      element.hidden = at < 0 || !known(total) || total <= 0;
      if (element.hidden) return;
      const parts = PHASES.map(([phase, name, shade]) => [name, of(`time/${phase}`), shade])
        .filter(([, seconds]) => known(seconds) && seconds >= SMALLEST * total);
      const rest = total - parts.reduce((sum, [, seconds]) => sum + seconds, 0);
      if (rest >= SMALLEST * total) parts.push(["the rest", rest, "var(--line)"]);
      draw.update(parts, total, of("time/look_back"), step);
    },
  };
}
