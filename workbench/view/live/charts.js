// The four charts of the Live view: reward, dead groups, completion length, entropy and KL.

import { makeChart } from "../common/chart.js";
import { h } from "../common/dom.js";
import { fixed, known, percent, plain, short } from "../common/format.js";
import { settingsChanged } from "./ribbon.js";
import { roundUp } from "../common/scale.js";
import { term } from "../common/tooltip.js";

const narrow = () => matchMedia("(max-width: 600px)").matches;
const column = (store, name) => store.data.metrics[name] ?? [];
const DEAD = "frac_reward_zero_std";
const LENGTH = "completions";
const most = (...columns) => columns.flat().reduce((top, value) => (known(value) && value > top ? value : top), 0);
const least = (...columns) => columns.flat().reduce((low, value) => (known(value) && value < low ? value : low), 0);
const lastKnown = (values, index) => {
  for (let i = index; i >= 0; i--) if (known(values[i])) return values[i];
  return null;
};

/** The recomputed values of `name` on the steps of the charts; null without a what-if, or where nothing changes. */
function overlay(store, other, name) {
  if (!other || JSON.stringify(other.asked[name]) === JSON.stringify(other.recorded[name])) return null;
  const found = new Map(other.steps.map((step, i) => [step, other.asked[name][i]]));
  return store.data.steps.map((step) => found.get(step) ?? null);
}

function reward({ store, header, other }) {
  const { steps, parts, evaluations } = store.data;
  const values = column(store, "reward");
  const names = Object.keys(parts);
  const weights = Object.fromEntries(header.rewards.map((reward) => [reward.name, reward]));
  const counting = names.filter((name) => weights[name]?.enabled !== false && weights[name]?.weight !== 0);
  const drawn = counting.length > 1 ? counting.slice(0, 3) : [];
  const [bottom, top] = header.reward_range ?? [Math.min(0, least(values)), roundUp(most(values)) || 1];
  const recomputed = overlay(store, other, "reward");
  const points = evaluations.map(({ step, mode, accuracy, low, high }) => ({ x: step, y: accuracy, low, high, open: mode === "greedy" }));
  const lastAccuracy = (mode, step) => evaluations.filter((one) => one.mode === mode && one.step <= step).at(-1)?.accuracy;
  return {
    x: steps,
    sub: `mean of ${header.prompts_per_step * header.num_generations} samples`,
    lines: [...drawn.map((name, i) => ({ values: parts[name], colour: "--ink3", width: 1.4, dash: [[], [4, 2.5], [1, 2]][i] })), { values, colour: "--accent", width: 2 }, ...(recomputed ? [{ values: recomputed, colour: "--accent", width: 1.6, dash: [5, 3] }] : [])],
    points,
    range: [Math.min(bottom, least(recomputed ?? [])), Math.max(top, bottom + 1e-6, roundUp(most(recomputed ?? [])))],
    tick: (value) => short(value, value * 10 === Math.round(value * 10) ? 1 : 2).replace(/\.0$/, ""),
    ends(index) {
      const step = index === steps.length - 1 ? Infinity : steps[index];
      const train = lastKnown(values, index);
      if (narrow()) return [{ y: train, text: short(train), colour: "--accent", bold: true }];
      return [
        { y: lastAccuracy("greedy", step), icon: "open", text: `greedy ${short(lastAccuracy("greedy", step))}`, colour: "--ink2" },
        { y: train, text: `train ${short(train)}`, colour: "--accent", bold: true },
        ...(recomputed ? [{ y: lastKnown(recomputed, index), text: `what if ${short(lastKnown(recomputed, index))}`, colour: "--accent" }] : []),
        { y: lastAccuracy("sampled", step), icon: "filled", text: `held-out ${short(lastAccuracy("sampled", step))}`, colour: "--ink" },
        ...drawn.map((name) => ({ y: lastKnown(parts[name], index), text: `${name.length > 12 ? `${name.slice(0, 11)}…` : name} ${short(lastKnown(parts[name], index))}`, colour: "--ink3" })),
      ];
    },
    words: `Reward, ${short(values[0])} at the start, ${short(values.at(-1))} now`,
  };
}

// The recorded share of groups that are dead on one side; older records lack it, so there it is counted from the ribbon's cells.
function deadShares(store, side) {
  const recorded = column(store, `${DEAD}/${side === "tied" ? side : `all_${side}`}`);
  if (recorded.length) return recorded;
  return store.data.steps.map((step) => {
    const cells = store.data.ribbon.get(step);
    return cells?.length ? cells.filter((cell) => cell[1] === side).length / cells.length : null;
  });
}

function dead({ store, header, other }) {
  const { steps } = store.data;
  const [right, wrong, tied] = ["right", "wrong", "tied"].map((side) => deadShares(store, side));
  const all = steps.map((_, i) => (right[i] ?? 0) + (wrong[i] ?? 0) + (tied[i] ?? 0));
  const recomputed = overlay(store, other, "dead");
  const high = Math.min(1, Math.max(0.2, roundUp(most(all, recomputed ?? []))));
  const say = (share, words) => `${percent(share ?? null)} ${words}`;
  return {
    x: steps,
    sub: `share of ${header.prompts_per_step}`,
    lines: recomputed ? [{ values: recomputed, colour: "--ink", width: 1.6, dash: [5, 3] }] : [],
    bars: [{ values: right, colour: "--line2" }, { values: tied, colour: "--line2" }, { values: wrong, colour: "--ink2", hatched: true }],
    range: [0, high],
    tick: percent,
    ends(index) {
      if (narrow()) return [{ y: all[index], text: percent(all[index]), colour: "--ink", bold: true }];
      return [
        { y: (right[index] ?? 0) + 0.01 * high, text: say(right[index], "all right"), colour: "--ink", bold: (right[index] ?? 0) >= (wrong[index] ?? 0) },
        ...(recomputed ? [{ y: lastKnown(recomputed, index), text: `what if ${percent(lastKnown(recomputed, index))}`, colour: "--ink2" }] : []),
        ...(most(tied) > 0 ? [{ y: (right[index] ?? 0) + (tied[index] ?? 0), text: say(tied[index], "all the same"), colour: "--ink2" }] : []),
        { y: wrong[index] > 0 ? all[index] : 0, text: say(wrong[index], "all wrong"), colour: wrong[index] > 0 ? "--ink" : "--ink3", bold: (wrong[index] ?? 0) > (right[index] ?? 0) },
      ];
    },
    words: `Dead groups, ${percent(all.at(-1))} of the newest step`,
  };
}

function length({ store, header }) {
  const { steps } = store.data;
  const values = column(store, `${LENGTH}/mean_length`);
  const [p10, p90, cut] = ["p10_length", "p90_length", "clipped_ratio"].map((name) => column(store, `${LENGTH}/${name}`));
  const high = roundUp(most(values, p90)) || 10;
  const limit = header.config.max_completion_length;
  const sides = [["right", "--accent", []], ["wrong", "--ink2", [4, 2.5]]]
    .map(([name, colour, dash]) => ({ name, colour, dash, values: column(store, `${LENGTH}/mean_length_${name}`) }))
    .filter(({ values: mean }) => mean.some(known));
  const n = (value) => fixed(value, 0);
  return {
    x: steps,
    sub: known(cut.at(-1)) ? `tokens · ${percent(cut.at(-1))} cut at ${limit}` : "tokens",
    lines: [{ values, colour: "--ink", width: 2 }, ...sides.map((side) => ({ values: side.values, colour: side.colour, width: 1.4, dash: side.dash }))],
    band: { low: p10, high: p90 },
    range: [0, high],
    tick: (value) => plain(value),
    ends(index) {
      if (narrow()) return [{ y: values[index], text: n(values[index]), colour: "--ink", bold: true }];
      return [
        { y: p90[index], text: `p90 ${n(p90[index])}`, colour: "--ink3" },
        { y: values[index], text: `mean ${n(values[index])}`, colour: "--ink", bold: true },
        ...sides.map((side) => ({ y: lastKnown(side.values, index), text: `${side.name} ${n(lastKnown(side.values, index))}`, colour: side.colour })),
        { y: p10[index], text: `p10 ${n(p10[index])}`, colour: "--ink3" },
      ];
    },
    words: `Sample length, ${n(values[0])} tokens at the start, ${n(values.at(-1))} now`,
  };
}

function drift({ store }) {
  const { steps } = store.data;
  const entropy = column(store, "entropy");
  const kl = column(store, "kl");
  // The KL to a reference that is synchronised is a sawtooth; the KL to the initial policy is then a second line.
  const initial = column(store, "kl_initial");
  const moving = initial.some(known);
  const drifts = moving ? [["KL to reference", kl, [1, 2]], ["KL to start", initial, [4, 2.5]]] : [["KL to base", kl, [4, 2.5]]];
  return {
    x: steps,
    sub: "nats per token",
    lines: [{ values: entropy, colour: "--plum", width: 2 }, ...drifts.map(([, values, dash]) => ({ values, colour: "--plum", width: 1.4, dash }))].filter((line) => line.values.some(known)),
    range: [0, roundUp(most(entropy, kl, initial)) || 0.1],
    tick: (value) => short(value, value < 0.1 && value > 0 ? 3 : 2).replace(/(\..*?)0+$/, "$1").replace(/\.$/, ""),
    ends(index) {
      if (narrow()) return [{ y: entropy[index], text: short(entropy[index]), colour: "--plum", bold: true }];
      return [
        ...drifts.map(([words, values]) => ({ y: lastKnown(values, index), text: `${words} ${short(lastKnown(values, index))}`, colour: "--plum" })),
        { y: lastKnown(entropy, index), text: `entropy ${short(lastKnown(entropy, index))}`, colour: "--plum", bold: true },
      ];
    },
    words: `Entropy ${short(entropy[0])} at the start, ${short(entropy.at(-1))} now; KL to the ${moving ? "reference" : "base model"} ${short(kl.at(-1))}${moving ? `, to the start ${short(initial.at(-1))}` : ""}`,
  };
}

// [glossary name, title, what it draws, metrics whose alarms draw their limit into it]
const CHARTS = [
  ["reward", "Reward", reward, []],
  [DEAD, "Dead groups", dead, [`${DEAD}/all_right`, `${DEAD}/all_wrong`, `${DEAD}/tied`]],
  [`${LENGTH}/mean_length`, "Sample length", length, []],
  ["entropy", "Entropy and drift", drift, ["entropy"]],
];

/** The thresholds that alarms of this chart's metrics have crossed: a dotted line each, labelled at its end. */
const limitsOf = (alarms, watches) => alarms.filter((alarm) => !alarm.muted && watches.includes(alarm.metric) && known(alarm.figures?.limit)).slice(0, 1)
  .map(({ figures }) => ({ y: figures.limit, text: `alarm at ${figures.limit < 1 && watches[0] !== "entropy" ? percent(figures.limit) : short(figures.limit)}` }));

/** All four charts with one shared hairline. `update({store, header, step, other})`: `step` is null when live, `other` the what-if or null. */
export function makeCharts({ onPick, name }) {
  const made = CHARTS.map(([metric, title, picture, watches]) => ({
    watches,
    chart: makeChart({ title: term(metric, title), sync: `wb-${name}`, onPick }),
    picture,
  }));
  return {
    element: h("div", { class: "charts" }, made.map(({ chart }) => chart.element)),
    update(state) {
      const marks = [...settingsChanged(state.store.data.events)].filter(([x]) => x <= (state.store.data.steps.at(-1) ?? -1)).map(([x, words]) => ({ x, words })); // a change that takes effect at a later step is not drawn yet
      for (const { chart, picture, watches } of made) chart.update({ ...picture(state), marks, limits: narrow() ? [] : limitsOf(state.store.data.alarms, watches) }, state.step);
    },
  };
}
