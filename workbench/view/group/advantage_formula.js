// The formula of the advantage with the numbers of one sample; a switch shows the advantages that another divisor would give.

import { h } from "../common/dom.js";
import { count, decimal, fixed, known, plain, signed } from "../common/format.js";
import { term } from "../common/tooltip.js";

const NAMES = { group: "the group std", batch: "the batch std", none: "nothing", leave_one_out: "nothing, against the mean of the others (RLOO)" };
const ROUNDING = 0.006; // of two figures with two digits

/** The name of the scaling that this run used. */
export const usedScaling = ({ kind, baseline }) => (baseline === "leave_one_out" && kind === "none" ? "leave_one_out" : kind);

/** Advantages of the group under a scaling, in sample order: the recorded ones for the run's own, else the server's. */
export const advantagesBy = (group, choice) =>
  choice === usedScaling(group.divisor) ? group.samples.map((sample) => sample.advantage) : (group.whatif?.[choice] ?? null);

/** The std that a scaling divides by, or null. */
export function sigmaOf(group, choice) {
  if (choice === "none" || choice === "leave_one_out") return null;
  if (choice === group.divisor.kind) return group.divisor.value;
  return choice === "group" ? group.reward_std : (group.batch_std ?? null);
}

const operand = (value, name, look = "") => h("span", { class: "c" }, h("span", { class: `v ${look}` }, value), h("span", { class: "n" }, name));
const op = (sign) => h("span", { class: "op", "aria-hidden": "true" }, sign);

/**
 * The panel. `scalings`: [{name, title}] to choose from, `choice` one of their names; `onChoose(name)` switches. `also`: what else the run
 * does to rewards before it subtracts the mean, in words.
 */
export function advantageFormula({ group, scalings, picked, choice, onChoose, narrow, also }) {
  const i = group.samples.findIndex((sample) => sample.index === picked);
  const sample = group.samples[i] ?? group.samples[0];
  const own = usedScaling(group.divisor);
  const a = advantagesBy(group, choice)?.[i < 0 ? 0 : i] ?? null;
  const sigma = sigmaOf(group, choice);
  const others = choice === "leave_one_out" || (choice === own && group.divisor.baseline === "leave_one_out");
  const scored = group.samples.filter((one) => known(one.reward));
  const base = others ? (group.reward_mean * scored.length - sample.reward) / Math.max(1, scored.length - 1) : group.reward_mean;
  const eps = group.divisor.eps;
  const number = `#${sample.index + 1}`;
  const look = a > 0 ? "pos" : a < 0 ? "neg" : "";
  const top = [operand(plain(sample.reward), narrow ? "reward" : "its reward"), op("−"), operand(fixed(base, 3), others ? "mean of the others" : "group mean")];
  const formula = sigma === null ? "reward − mean" : "(reward − mean) ÷ std";
  const short = sigma === null ? "r − mean" : "(r − mean) ÷ std";

  return [
    h("div", { class: "arithhead" }, h("h2", {}, term("advantage", narrow ? "A" : "Advantage"), ` = ${narrow ? short : formula}`), h("span", { class: "i3" }, narrow ? `${number} picked` : "")),
    !known(sample.reward)
      ? h("p", { class: "eqnote" }, `${number} has no score: it has no advantage and is left out of the mean and the std.`)
      : h("div", { class: "eq", role: "math", "aria-label": `${signed(a)} = (${plain(sample.reward)} − ${fixed(base, 3)})${sigma === null ? "" : ` ÷ (${fixed(sigma, 3)} + ${decimal(eps)})`}` },
          operand(signed(a), narrow ? "advantage" : `advantage of ${number}`, look), op("="),
          sigma === null
            ? h("div", { class: "rw" }, top)
            : h("div", { class: "frac" }, h("div", { class: "rw" }, top), h("div", { class: "ln" }),
                h("div", { class: "rw" }, operand(fixed(sigma, 3), choice === "batch" ? "batch std, σ" : narrow ? "std" : "group std, σ"), op("+"), operand(decimal(eps), "ε")))),
    h("div", { class: "divide" }, h("span", { class: "i3 nw", id: "divideby" }, "Divide by"),
      h("span", { class: "seg", role: "group", "aria-labelledby": "divideby" }, scalings.map(({ name, title }) =>
        h("button", { type: "button", class: name === choice ? "on" : "", "aria-pressed": String(name === choice), "data-key": `divide-${name}`, disabled: advantagesBy(group, name) === null, on: { click: () => onChoose(name) } }, title, name === own && name !== choice ? h("span", { class: "own", "aria-hidden": "true" }) : null)))),
    h("p", { class: "eqnote" }, notes({ group, choice, own, sample, base, sigma, a, eps, scored, also })),
  ];
}

function extremes(values) {
  const there = (values ?? []).filter(known);
  return there.length ? `${signed(Math.min(...there))} and ${signed(Math.max(...there))}` : null;
}

function notes({ group, choice, own, sample, base, sigma, a, eps, scored, also }) {
  const out = [];
  if (choice !== own) out.push(`What if: this run divides by ${NAMES[own]}, which gave ${extremes(advantagesBy(group, own))}.`);
  if (sigma !== null) out.push(group.divisor.std === "population" ? "Population std (n), as in the papers." : "Sample std (n − 1), as TRL.");
  if (choice === own && own !== "none") {
    const undivided = extremes(group.whatif?.none);
    if (undivided) out.push(`Divided by nothing (Dr. GRPO): ${undivided}.`);
  }
  const failed = group.samples.length - scored.length;
  if (failed) out.push(`${count(failed, "sample")} without a score ${failed === 1 ? "is" : "are"} left out of mean and std.`);
  const mine = known(sample.reward) ? (sample.reward - base) / (sigma === null ? 1 : sigma + eps) : null;
  if (choice === own && known(a) && known(mine) && Math.abs(mine - a) > ROUNDING) out.push(`Recorded is ${signed(a)}; these numbers alone give ${signed(mine)}${also ? `: ${also}` : ""}.`);
  return out.join(" ");
}
