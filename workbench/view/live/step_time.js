// Where a step's time went: one bar of its phases, in their order, with words; and what ran beside the next step's sampling.

import { h, part } from "../common/dom.js";
import { duration, known } from "../common/format.js";

/** A phase as people call it, and its shade. Every other phase counts as the rest. */
const PHASES = [
  ["sample", "sampling", "var(--ink3)"],
  ["score", "scoring", "var(--line2)"],
  ["update", "update", "var(--ink2)"],
];
const SMALLEST = 0.02; // share of the step below which a phase is told among the rest

export function makeStepTime({ store }) {
  const element = h("section", { class: "panel spent", "aria-label": "Where the step’s time went" });
  const draw = part(element, (parts, whole, beside, step) => [
    h("div", { class: "ph" }, h("h2", {}, "Where the time went"), h("span", { class: "sp" }), h("span", { class: "i3" }, `step ${step}, ${duration(whole)}`)),
    h("div", { class: "spentbar", "aria-hidden": "true" }, parts.map(([, seconds, shade]) => h("span", { style: { "flex-grow": String(seconds / whole * 100), background: shade } }))),
    h("ul", {}, parts.map(([name, seconds, shade]) => h("li", {}, h("i", { style: { background: shade } }), `${name} ${duration(seconds)}`))),
    known(beside) && h("p", { class: "note" }, `Looking back and recording took ${duration(beside)} beside the next step’s sampling.`),
  ]);
  return {
    element,
    /** `step` is the one under the cursor. */
    update(step) {
      const at = store.data.steps.indexOf(step);
      const of = (name) => store.data.metrics[name]?.[at];
      const whole = of("step_time");
      element.hidden = at < 0 || !known(whole) || whole <= 0;
      if (element.hidden) return;
      const parts = PHASES.map(([phase, name, shade]) => [name, of(`time/${phase}`), shade])
        .filter(([, seconds]) => known(seconds) && seconds >= SMALLEST * whole);
      const rest = whole - parts.reduce((sum, [, seconds]) => sum + seconds, 0);
      if (rest >= SMALLEST * whole) parts.push(["the rest", rest, "var(--line)"]);
      draw.update(parts, whole, of("time/look_back"), step);
    },
  };
}
