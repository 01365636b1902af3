// The formula of the advantage with one sample's own numbers, every operand named; and what another divisor would ask.

import { h } from "../common/dom.js";
import { count, decimal, fixed, known, plain, signed } from "../common/format.js";
import { term } from "../common/tooltip.js";

export const DIVISORS = [["group", "Group std"], ["batch", "Batch std"], ["none", "Nothing"], ["leave_one_out", "RLOO"]];
const NAMES = { group: "the group std", batch: "the batch std", none: "nothing", leave_one_out: "nothing, against the mean of the others (RLOO)" };
const NEAR = 0.006;

/** Which divisor this run used, in the words of the switch. */
export const used = ({ kind, baseline }) => (baseline === "leave_one_out" && kind === "none" ? "leave_one_out" : kind);

/** What `choice` would ask of each sample: the recorded advantages for the run's own divisor, else the server's what-if. */
export const askedBy = (group, choice) =>
  choice === used(group.divisor) ? group.samples.map((sample) => sample.advantage) : (group.whatif?.[choice] ?? null);

/** The sigma that `choice` divides by, or null. */
export function sigmaOf(group, choice) {
  if (choice === "none" || choice === "leave_one_out") return null;
  if (choice === group.divisor.kind) return group.divisor.value;
  return choice === "group" ? group.reward_std : (group.batch_std ?? null);
}

const operand = (value, name, look = "") => h("span", { class: "c" }, h("span", { class: `v ${look}` }, value), h("span", { class: "n" }, name));
const op = (sign) => h("span", { class: "op", "aria-hidden": "true" }, sign);

/** The strip. `choice` a divisor of DIVISORS; `onChoose(choice)` switches. */
export function arithmetic({ group, picked, choice, onChoose, narrow, decorated }) {
  const i = group.samples.findIndex((sample) => sample.index === picked);
  const sample = group.samples[i] ?? group.samples[0];
  const own = used(group.divisor);
  const a = askedBy(group, choice)?.[i < 0 ? 0 : i] ?? null;
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
      ? h("p", { class: "eqnote" }, `${number} has no score, so nothing is asked of it: it is left out of the mean and the std.`)
      : h("div", { class: "eq", role: "math", "aria-label": `${signed(a)} = (${plain(sample.reward)} − ${fixed(base, 3)})${sigma === null ? "" : ` ÷ (${fixed(sigma, 3)} + ${decimal(eps)})`}` },
          operand(signed(a), narrow ? "advantage" : `advantage of ${number}`, look), op("="),
          sigma === null
            ? h("div", { class: "rw" }, top)
            : h("div", { class: "frac" }, h("div", { class: "rw" }, top), h("div", { class: "ln" }),
                h("div", { class: "rw" }, operand(fixed(sigma, 3), choice === "batch" ? "batch std, σ" : narrow ? "std" : "group std, σ"), op("+"), operand(decimal(eps), "guard")))),
    h("div", { class: "divide" }, h("span", { class: "i3 nw", id: "divideby" }, "Divide by"),
      h("span", { class: "seg", role: "group", "aria-labelledby": "divideby" }, DIVISORS.map(([name, label]) =>
        h("button", { type: "button", class: name === choice ? "on" : "", "aria-pressed": String(name === choice), "data-key": `divide-${name}`, disabled: askedBy(group, name) === null, on: { click: () => onChoose(name) } }, label, name === own && name !== choice ? h("span", { class: "own", "aria-hidden": "true" }) : null)))),
    h("p", { class: "eqnote" }, notes({ group, choice, own, sample, base, sigma, a, eps, scored, decorated })),
  ];
}

function extremes(asked) {
  const there = (asked ?? []).filter(known);
  return there.length ? `${signed(Math.min(...there))} and ${signed(Math.max(...there))}` : null;
}

function notes({ group, choice, own, sample, base, sigma, a, eps, scored, decorated }) {
  const out = [];
  if (choice !== own) out.push(`What if: this run divides by ${NAMES[own]}, which asked for ${extremes(askedBy(group, own))}.`);
  if (sigma !== null) out.push(group.divisor.std === "population" ? "Population std (n), as in the papers." : "Sample std (n − 1), as TRL.");
  if (choice === own && own !== "none") {
    const plainly = extremes(group.whatif?.none);
    if (plainly) out.push(`Divided by nothing (Dr. GRPO): ${plainly}.`);
  }
  const failed = group.samples.length - scored.length;
  if (failed) out.push(`${count(failed, "answer")} without a score ${failed === 1 ? "is" : "are"} left out of mean and std.`);
  const mine = known(sample.reward) ? (sample.reward - base) / (sigma === null ? 1 : sigma + eps) : null;
  if (choice === own && known(a) && known(mine) && Math.abs(mine - a) > NEAR) out.push(`Recorded is ${signed(a)}; these operands alone give ${signed(mine)}${decorated ? `: ${decorated}` : ""}.`);
  return out.join(" ");
}
