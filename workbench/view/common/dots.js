// Samples as dots: right is filled and blue, wrong is a ring and orange, a dead group is grey. Shape and hue say the same.

import { h, s } from "./dom.js";
import { fixed } from "./format.js";

/** Radius by length: the area grows with it, from 2.2 to 6. */
const radius = (length) => Math.max(2.2, Math.min(6, 0.68 * Math.sqrt(length)));

/** The mark of one sample: filled for right or for A > 0 where right is not known. */
export function mark(sample, size = 12) {
  const up = isUp(sample);
  return s("svg", { width: size, height: size, viewBox: "0 0 12 12", class: "mark", "aria-hidden": "true" },
    s("circle", { cx: 6, cy: 6, r: up ? 4.4 : 3.8, class: up ? "dot up" : "dot down" }));
}

/** The mark of a held-out evaluation: filled for sampled decoding, open for greedy decoding. */
export const diamond = (open) => s("svg", { width: 9, height: 9, viewBox: "0 0 9 9", "aria-hidden": "true" }, s("path", { d: "M4.5 .8l3.7 3.7-3.7 3.7-3.7-3.7z", class: open ? "diamond open" : "diamond" }));

/** Whether the sample is right; where correctness is not scored, whether its advantage is above 0. */
export const isUp = (sample) => sample.right ?? (sample.advantage ?? 0) > 0;

export const rightWord = (sample) => (sample.right === null || sample.right === undefined ? (isUp(sample) ? "above the mean" : "below the mean") : sample.right ? "right" : "wrong");

/**
 * One row of dots, wrong to right and then by length. With `range` [lo, hi] dots stand at their reward. Every dot carries
 * data-sample for the click that opens it.
 */
export function dotRow(samples, { width = 210, dead = "", range = null } = {}) {
  const scored = samples.filter((sample) => sample.reward !== null);
  const svg = s("svg", { height: 16, class: "dots", role: "img", "aria-label": words(samples, range) });
  const draw = range ? onAxis : inRow;
  const used = draw(svg, scored, samples.filter((sample) => sample.reward === null), { width, dead, range });
  svg.setAttribute("width", used);
  return svg;
}

function words(samples, range) {
  const right = samples.filter((sample) => sample.right).length;
  const failed = samples.filter((sample) => sample.reward === null).length;
  const mean = samples.reduce((sum, sample) => sum + (sample.reward ?? 0), 0) / Math.max(1, samples.length - failed);
  return `${range ? `mean reward ${fixed(mean)}` : `${right} of ${samples.length} right`}${failed ? `, ${failed} without a score` : ""}`;
}

function dot(sample, x, r, dead) {
  const up = isUp(sample);
  const classes = `dot ${dead ? "dead" : ""} ${up ? "up" : "down"}`;
  return s("circle", { cx: x, cy: 8, r: up ? r : r - 0.6, class: classes, "data-sample": sample.index });
}

function inRow(svg, scored, failed, { width, dead }) {
  const step = Math.max(3, Math.min(15, (width - 16) / (scored.length + failed.length)));
  const ordered = [...scored].sort((a, b) => isUp(a) - isUp(b) || a.length - b.length);
  let x = step / 2;
  let before = null;
  for (const sample of ordered) {
    if (before !== null && before !== isUp(sample)) {
      const gap = Math.round(x - step / 2 + 3) + 0.5;
      svg.append(s("line", { x1: gap, x2: gap, y1: 2, y2: 14, class: "hair" }));
      x += 8;
    }
    svg.append(dot(sample, x, Math.min(radius(sample.length), step / 2 + 0.5), dead));
    before = isUp(sample);
    x += step;
  }
  for (const sample of failed) {
    svg.append(s("path", { d: `M${x - 2.5} 5.5l5 5m0 -5l-5 5`, class: "failed", "data-sample": sample.index }));
    x += step;
  }
  return Math.ceil(x - step / 2 + 6);
}

function onAxis(svg, scored, failed, { width, dead, range: [low, high] }) {
  const at = (reward) => 7 + ((Math.min(high, Math.max(low, reward)) - low) / (high - low || 1)) * (width - 28);
  svg.append(s("line", { x1: 2, x2: width - 16, y1: 8, y2: 8, class: "hair" }));
  for (const sample of [...scored].sort((a, b) => b.length - a.length)) svg.append(dot(sample, at(sample.reward), radius(sample.length), dead));
  failed.forEach((sample, i) => svg.append(s("path", { d: `M${width - 10 + i * 3} 5.5l5 5m0 -5l-5 5`, class: "failed", "data-sample": sample.index })));
  return width;
}

/** A horizontal bar of a share, on a sunken track. */
export const shareBar = (share, largest) =>
  h("span", { class: "track", "aria-hidden": "true" }, h("span", { style: { width: `${largest > 0 ? Math.max(1, (share / largest) * 100) : 0}%` } }));
