// Rewards on the upper axis, advantages on the lower one, and how the one becomes the other: the mean moves to zero, one std becomes
// one.

import { s } from "../common/dom.js";
import { isUp } from "../common/dots.js";
import { fixed, known, plain, signed } from "../common/format.js";

const FEW = 5;

/**
 * `advantages`: one a sample, the recorded ones or those of another divisor; `sigma`: the divisor, null for none; `picked`: a sample
 * index; `binary`: rewards are right and wrong.
 */
export function advantagePicture({ group, advantages, sigma, picked, binary }, width, height) {
  const narrow = width < 480;
  const scored = group.samples.map((sample, i) => ({ ...sample, plotted: advantages?.[i] ?? null })).filter((sample) => known(sample.reward));
  const svg = s("svg", { width, height, class: "picture", role: "img", "aria-label": words(group, scored, sigma) });
  if (!scored.length) return svg;
  const left = narrow ? 92 : 156;
  const right = narrow ? 22 : 64;
  const top = narrow ? 62 : 68;
  const bottom = height - (narrow ? 46 : 50);
  const rewards = scored.map((sample) => sample.reward);
  const mean = group.reward_mean ?? rewards.reduce((a, b) => a + b, 0) / rewards.length;
  const low = binary ? 0 : Math.min(...rewards, mean);
  const high = binary ? 1 : Math.max(...rewards, low + 1e-9);
  const inset = (width - left - right) * 0.15;
  const atReward = (reward) => left + inset + ((reward - low) / (high - low)) * (width - left - right - 2 * inset);
  const centre = atReward(mean);

  const largest = Math.max(0, ...scored.map((sample) => sample.plotted).filter(known).map(Math.abs));
  const unit = largest > 1e-9 ? rulerUnit(scored, centre, atReward, left - 4, width - right + 12) : 0;
  const atAdvantage = (a) => centre + a * unit;

  svg.append(ruler("Reward", narrow ? "r" : "r, as scored", left, width - right + 14, top));
  const values = clusters(scored, (sample) => sample.reward);
  const lanes = values.length <= FEW;
  if (unit) svg.append(ruler("Advantage", narrow ? "A" : "A, group-relative", left, width - right + 14, bottom));
  if (unit) svg.append(flows(lanes ? values : scored.map((sample) => ({ value: sample.reward, samples: [sample] })), { atReward, atAdvantage, top, bottom, lanes, narrow }));
  svg.append(dots(values, { atReward, top, picked, narrow, span: width - left - right, binary, centre }));
  for (const value of binary ? [0, 1] : [low, high]) svg.append(tick(atReward(value), top, plain(value), "t2"));

  const near = binary && values.some(({ value }) => Math.abs(atReward(value) - centre) < 58);
  const meanTop = near ? 20 : top - 20;
  svg.append(
    s("line", { x1: centre, x2: centre, y1: meanTop, y2: (unit ? bottom : top) + 6, class: "meanrule" }),
    s("text", { x: centre, y: meanTop - 6, "text-anchor": "middle", class: "t1" }, `mean ${narrow ? fixed(mean, 3).replace(/^0/, "") : fixed(mean, 3)}`));
  if (!unit) {
    const lines = narrow ? ["σ = 0: all samples scored the same,", "so every advantage is 0."] : ["σ = 0: all samples scored the same, so every advantage is 0."];
    if (group.divisor) svg.append(...lines.map((line, i) => s("text", { x: left, y: bottom - 6 + 17 * i, class: "t2" }, line)));
    return svg;
  }
  if (sigma > 0) svg.append(bracket({ mean, sigma, centre, atReward, atAdvantage, top, bottom, narrow, edge: left, far: width - right }));
  svg.append(advantageTicks(largest, atAdvantage, bottom, left - 10, width - right + 16), ends(scored, { atAdvantage, bottom, narrow, width, left }));
  return svg;
}

// Pixels of one unit of advantage: stretched up to 1.28 times where the axis has room, so that the bands visibly diverge.
function rulerUnit(scored, centre, atReward, from, to) {
  const moved = scored.filter((sample) => known(sample.plotted) && Math.abs(sample.plotted) > 1e-9);
  const natural = Math.max(...moved.map((sample) => Math.abs(atReward(sample.reward) - centre) / Math.abs(sample.plotted)));
  const fits = Math.min(...moved.map((sample) => (sample.plotted > 0 ? to - centre : centre - from) / Math.abs(sample.plotted)));
  return Math.min(natural * 1.28, fits);
}

const ruler = (name, note, left, right, y) =>
  s("g", {}, s("text", { x: 14, y: y - 4, class: "t1" }, name), s("text", { x: 14, y: y + 11 }, note), s("line", { x1: left - 8, x2: right, y1: y, y2: y, class: "ruler" }));

const tick = (x, y, text, look = "") => s("g", {}, s("line", { x1: x, x2: x, y1: y, y2: y + 5, class: "ruler" }), s("text", { x, y: y + 17, "text-anchor": "middle", class: `m ${look}` }, text));

function clusters(samples, of) {
  const by = new Map();
  for (const sample of samples) by.set(of(sample), [...(by.get(of(sample)) ?? []), sample]);
  return [...by].map(([value, members]) => ({ value, samples: members })).sort((a, b) => a.value - b.value);
}

function flows(lanes, { atReward, atAdvantage, top, bottom, lanes: wide, narrow }) {
  const middle = (top + bottom) / 2;
  return s("g", {}, lanes.map(({ value, samples }) => {
    const advantage = samples[0].plotted;
    if (!known(advantage)) return null;
    const [from, to] = [atReward(value), atAdvantage(advantage)];
    const half = wide ? Math.max(1.5, Math.min(narrow ? 24 : 42, samples.length * (narrow ? 2.4 : 5))) : 0;
    const look = advantage > 1e-9 ? "up" : advantage < -1e-9 ? "down" : "zero";
    if (!half) return s("path", { d: `M${from} ${top}C${from} ${middle} ${to} ${middle} ${to} ${bottom}`, class: `thread ${look}` });
    return s("path", { class: `flow ${look}`, d: `M${from - half} ${top}C${from - half} ${middle} ${to - half} ${middle} ${to - half} ${bottom}L${to + half} ${bottom}C${to + half} ${middle} ${from + half} ${middle} ${from + half} ${top}Z` });
  }));
}

function dots(values, { atReward, top, picked, narrow, span, binary, centre }) {
  const group = s("g", {});
  values.forEach(({ value, samples }, k) => {
    const x = atReward(value);
    const space = Math.min(...values.filter((_, j) => j !== k).map((other) => Math.abs(atReward(other.value) - x)), span) * 0.9;
    const size = samples.length > 24 ? 3 : narrow ? 3.2 : 4.6;
    const step = size * 2 + (narrow ? 1.6 : 3.6);
    const perRow = Math.max(1, Math.min(samples.length, Math.floor(space / step), narrow ? 9 : 16));
    const rows = Math.ceil(samples.length / perRow);
    const rise = Math.min(size * 2 + 2, (top - 24) / rows);
    samples.forEach((sample, i) => {
      const row = Math.floor(i / perRow);
      const inRow = Math.min(perRow, samples.length - row * perRow);
      const up = isUp(sample);
      group.append(s("circle", { cx: x + ((i % perRow) - (inRow - 1) / 2) * step, cy: top - size - 5 - row * rise, r: up ? size : size - 0.6, "data-sample": sample.index,
        class: `dot ${up ? "up" : "down"} ${sample.index === picked ? "picked" : ""}` }));
    });
    const lift = top - size * 2 - 10 - (rows - 1) * rise;
    const aside = Math.abs(x - centre) < 58 ? (x < centre ? "end" : "start") : "middle";
    if (binary && lift > 8) group.append(s("text", { x: aside === "middle" ? x : x + (aside === "end" ? -8 : 8) - (aside === "end" ? -1 : 1) * 0, y: lift, "text-anchor": aside, class: "t2" }, `${samples.length} ${value >= 0.5 ? "right" : "wrong"}`));
  });
  return group;
}

function bracket({ mean, sigma, centre, atReward, atAdvantage, top, bottom, narrow, edge, far }) {
  const to = atReward(mean - sigma) > edge ? -1 : 1;
  const end = Math.max(edge - 20, Math.min(far + 20, atReward(mean + to * sigma)));
  const y = (top + bottom) / 2 + 2;
  const text = narrow ? `σ ${fixed(sigma, 3).replace(/^0/, "")}` : `one σ = ${fixed(sigma, 3)}`;
  const half = narrow ? 27 : 50;
  const middle = (centre + end) / 2;
  const inside = Math.abs(centre - end) > half * 2 + 8;
  const x = inside ? middle : end + to * (half + 6);
  return s("g", {},
    s("line", { x1: end, x2: centre, y1: y, y2: y, class: "sigma" }), s("line", { x1: end, x2: end, y1: y - 4, y2: y + 4, class: "sigma" }),
    s("rect", { x: x - half, y: y - 9, width: half * 2, height: 18, rx: 3, class: "plate" }), s("text", { x, y: y + 4, "text-anchor": "middle", class: "t1" }, text),
    s("line", { x1: end, x2: atAdvantage(to), y1: y + 4, y2: bottom - 1, class: "guide" }));
}

function advantageTicks(largest, at, y, from, to) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5].find((candidate) => candidate * 2 >= largest) ?? 10;
  const ticks = [-2, -1, 0, 1, 2].map((k) => k * step).filter((a) => at(a) >= from && at(a) <= to);
  return s("g", {}, ticks.map((a) => tick(at(a), y, a === 0 ? "0" : signed(a, step < 1 ? 1 : 0))));
}

function ends(scored, { atAdvantage, bottom, narrow, width, left }) {
  const values = scored.map((sample) => sample.plotted).filter(known);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const one = (a, side) => {
    if (Math.abs(a) < 1e-9 || Math.sign(a) !== side) return null;
    const x = atAdvantage(a);
    const look = side > 0 ? "pos" : "neg";
    const at = Math.max(left - 4, Math.min(width - 36, x + (narrow ? 0 : side * 10)));
    return s("g", {},
      s("path", { d: `M${x} ${bottom}l-5 -8h10z`, class: `tip-${look}` }),
      s("text", { x: at, y: bottom + (narrow ? 35 : 37), "text-anchor": "middle", class: `m big ${look}` }, signed(a)),
      !narrow && s("text", { x: at - side * 30, y: bottom + 37, "text-anchor": side > 0 ? "end" : "start" }, side > 0 ? "make these more likely" : "make these less likely"));
  };
  return s("g", {}, one(low, -1), one(high, 1));
}

const words = (group, scored, sigma) =>
  `Rewards of ${scored.length} samples: mean ${fixed(group.reward_mean, 3)}${sigma > 0 ? `, sigma ${fixed(sigma, 3)}` : ""}. ` +
  `Advantages from ${signed(Math.min(...scored.map((sample) => sample.plotted ?? 0)))} to ${signed(Math.max(...scored.map((sample) => sample.plotted ?? 0)))}.`;
