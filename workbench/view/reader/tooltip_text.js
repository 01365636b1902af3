// The text of tooltips: the glossary's words for a metric, and its formula with this step's numbers.

import { decimal, fixed, known, percent, plain, signed } from "../common/format.js";
import { describeToken } from "../group/tokens.js";

/** The content of the tooltip of `anchor` (an element with data-tip), or null. */
export function tooltipText(anchor, { glossary, store, header, step, group, lens }) {
  const name = anchor.dataset.tip;
  if (name === "token") return token(anchor, group, lens);
  if (name.startsWith("lens-")) return lensContent(name.slice(5));
  if (name.startsWith("alarm-")) return alarm(glossary.alarms?.[name.slice(6)], glossary);
  if (name.startsWith("setting-")) return setting(glossary.settings?.[name.slice(8)]);
  const metric = glossary.metrics[name] ?? FALLBACK[name];
  if (!metric) return null;
  const numbers = NUMBERS[name]?.({ store, header, step, group }) ?? plainNumber(name, metric, store, step);
  return {
    title: metric.label ?? name,
    aside: step === null ? "" : `step ${group?.group.step ?? step}`,
    text: metric.meaning,
    formula: [metric.formula, numbers].filter(Boolean),
    rows: [["Unit", metric.unit], ["Healthy", metric.healthy], ["High", metric.high], ["Low", metric.low], ["Do", metric.do]].filter(([, words]) => words),
  };
}

const lensContent = (name) => {
  const [title, text, formula, rows] = LENS_WORDS[name];
  return { title, text, formula, rows };
};

const alarm = (row, { metrics }) => row && { title: row.label, aside: "alarm", text: row.cause, formula: [], rows: [["Raised", row.condition], ["Watches", metrics[row.metric]?.label ?? row.metric]] };

const setting = (row) => row && { title: row.label, text: row.help, formula: [], rows: [["Allowed", row.facts]] };

function token(anchor, shown, lens) {
  const box = anchor.closest("[data-sample-tokens]");
  const sample = shown?.group.samples.find((one) => one.index === Number(box?.dataset.sampleTokens));
  return sample?.tokens ? describeToken(sample, Number(anchor.dataset.tok), lens) : null;
}

const plainNumber = (name, metric, store, step) => {
  const value = store.at(name, step);
  return known(value) ? `this step: ${plain(value)}` : "";
};

// Formulas with the numbers of this step or group.
const NUMBERS = {
  frac_reward_zero_std({ store, step }) {
    const cells = store.data.ribbon.get(step);
    if (!cells) return "";
    const dead = cells.filter((cell) => cell[1]).length;
    return `${dead} ÷ ${cells.length} = ${percent(dead / cells.length)}`;
  },
  reward_std({ group }) {
    if (!group?.group.divisor) return "";
    const { samples, reward_mean: mean, reward_std: sigma, divisor } = group.group;
    const rewards = samples.map((sample) => sample.reward).filter(known);
    const squares = rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0);
    const n = rewards.length - (divisor.std === "population" ? 0 : 1);
    return `√( ${fixed(squares, 3)} ÷ ${n} ) = ${fixed(sigma, 3)}`;
  },
  advantage({ group }) {
    if (!group?.group.divisor) return "";
    const { samples, reward_mean: mean, divisor } = group.group;
    const best = [...samples].filter((sample) => known(sample.reward)).sort((a, b) => b.advantage - a.advantage)[0];
    if (!best || divisor.kind === "none") return "";
    return `(${plain(best.reward)} − ${fixed(mean, 3)}) ÷ (${fixed(divisor.value, 3)} + ${decimal(divisor.eps)}) = ${signed(best.advantage)}`;
  },
  gradient_share({ group }) {
    return group ? `this group: ${percent(group.group.gradient_share)} of step ${group.group.step}` : "";
  },
  "completions/mean_length"({ store, step }) {
    const [mean, p10, p90] = ["mean_length", "p10_length", "p90_length"].map((name) => store.at(`completions/${name}`, step));
    return known(mean) ? `mean ${fixed(mean, 1)}${known(p10) ? `, p10 ${plain(p10)}, p90 ${plain(p90)}` : ""}` : "";
  },
};

// Figures that are drawn but are no recorded metric.
const FALLBACK = {
  advantage: { label: "Advantage, A", meaning: "How much better than its own group a sample scored. It is the same for every token of the sample.", formula: "(reward − group mean) ÷ (group std + eps)", high: "make this sample more likely", low: "make it less likely" },
  reward_std: { label: "Group std, σ", meaning: "How far rewards in a group lie from their mean. Advantages are divided by it.", formula: "√( Σ(r − mean)² ÷ (n − 1) )", low: "near 0, a tiny gap in reward becomes a full-size A; at 0 the group is dead" },
  gradient_share: { label: "Share of the gradient", meaning: "How much of the step’s update comes from here: not |A| × length, since sure tokens hardly push.", formula: "Σ |A| · ‖one-hot − p‖ over tokens, as percent of the step" },
  delta_logp: { label: "Δ log p", meaning: "How much likelier the same sample became by this update: the same tokens scored again with the new weights.", formula: "Σ over tokens of log p after − log p before", unit: "nats", high: "above 0 where A > 0: the update followed the advantage", low: "below 0 where A > 0: the update went against it" },
  frac_reward_zero_std: { label: "Dead groups", meaning: "Groups in which every sample got the same reward. Their σ is 0, so every advantage is 0.", formula: "groups with σ = 0 ÷ groups", healthy: "under 50 %", high: "all right: prompts too easy now; all wrong: too hard, add partial credit" },
};

const LENS_WORDS = {
  push: ["Push", "How far an on-policy step pulls this token’s logit up or down. Sure tokens hardly move, forks do.", ["push = A · (1 − p)"], [["Scale", "fixed: steps at .04, .2 and .5"]]],
  advantage: ["Advantage", "The advantage of the sample. Every token of it carries the same A.", ["A = (r − mean) ÷ σ"], [["Scale", "fixed: steps at .04, .2 and .5"]]],
  delta: ["Δ log p", "What the update did to this token: its log-probability after the step less the one before.", ["log p after − log p before"], [["Scale", "fixed: steps at .04, .2 and .5 nats"]]],
  weight: ["Weight in the loss", "The gradient of the loss for this token, with clip, normaliser and KL. Where every token counts alike and nothing was clipped it is A.", ["−∂loss/∂log p × tokens of the update"], [["Scale", "fixed: steps at .04, .2 and .5"]]],
  ratio: ["Policy ratio", "How many times likelier this token became by the step’s updates. A further pass over the same samples would see this ratio, and clip it beyond ε.", ["exp(log p after − log p before)"], [["Scale", "fixed: steps at .04, .2 and .5 away from 1; .2 is the usual ε"]]],
  mismatch: ["Trainer against sampler", "The same weights should give the same probability. Where they differ, sampler and trainer compute differently.", ["log( p trainer ÷ p sampler )"], [["Healthy", "nothing coloured"]]],
  kl: ["KL to the base", "How far this token’s probability has moved from the base model’s.", ["exp(d) − d − 1,  d = log p base − log p"], [["Scale", "0 to 1 nat; higher is drawn as 1"]]],
  entropy: ["Entropy", "How open the choice was when this token was drawn.", ["−Σ p log p over the vocabulary"], [["Scale", "0 to ln 2 = 0.69 nats; higher is drawn as ln 2"]]],
};
