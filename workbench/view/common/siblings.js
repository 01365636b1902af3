// How the answers of one group relate: what they share, where they part, which of them to lay side by side.

import { isUp } from "./dots.js";

/** The ids of a sample's tokens, or the characters of its text where token arrays were not kept. */
export const units = (sample) => sample.tokens?.ids ?? [...sample.text.slice(0, 4000)];

/** How many units two samples have in common before they part. */
export function sharedPrefix(a, b) {
  const [left, right] = [units(a), units(b)];
  const end = Math.min(left.length, right.length);
  let i = 0;
  while (i < end && left[i] === right[i]) i++;
  return i;
}

/** The shared prefix of several samples. */
export const commonPrefix = (samples) =>
  samples.length < 2 ? 0 : Math.min(...samples.slice(1).map((sample) => sharedPrefix(samples[0], sample)));

const same = (a, b) => a.text === b.text;

/** The other samples that say exactly this. */
export const twins = (sample, samples) => samples.filter((other) => other.index !== sample.index && same(other, sample));

const byReward = (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || a.length - b.length || a.index - b.index;

/** Its nearest opposite: the sample on the other side of the mean with the longest shared prefix. */
export function nearestOpposite(sample, samples) {
  const others = samples.filter((other) => isUp(other) !== isUp(sample) && other.reward !== null);
  return others.sort((a, b) => sharedPrefix(sample, b) - sharedPrefix(sample, a) || Math.abs(a.length - sample.length) - Math.abs(b.length - sample.length))[0] ?? null;
}

/** A sample that differs from those already chosen: on the same side as the first, but with another text. */
function another(chosen, samples) {
  const free = samples.filter((sample) => !chosen.some((other) => other.index === sample.index || same(other, sample)) && sample.reward !== null);
  return free.sort((a, b) => sharedPrefix(chosen[0], b) - sharedPrefix(chosen[0], a) || byReward(a, b))[0] ?? samples.find((sample) => !chosen.includes(sample)) ?? null;
}

/** The right and the wrong sample that go together longest before they part: the fork that this group is about. */
export function tellingPair(samples) {
  const scored = samples.filter((sample) => sample.reward !== null);
  let best = null;
  for (const up of scored.filter(isUp))
    for (const down of scored.filter((sample) => !isUp(sample))) {
      const shared = sharedPrefix(up, down);
      const length = up.length + down.length;
      if (!best || shared > best.shared || (shared === best.shared && length < best.length)) best = { up, down, shared, length };
    }
  return best ? [best.up, best.down] : null;
}

/** The cards to show: the picked sample (or the upper one of the telling pair), one that differs, its nearest opposite. */
export function chooseCards(samples, picked, room) {
  const first = samples.find((sample) => sample.index === picked) ?? tellingPair(samples)?.[0] ?? [...samples].sort(byReward)[0];
  if (!first) return [];
  const opposite = nearestOpposite(first, samples);
  const chosen = [first, opposite].filter(Boolean);
  while (chosen.length < Math.min(room, samples.length)) {
    const next = another(chosen, samples);
    if (!next) break;
    chosen.push(next);
  }
  // The picked one first, its opposite last, so that the two sides of the group stand at the two sides of the page.
  return opposite ? [first, ...chosen.slice(2), opposite].slice(0, Math.max(room, 2)) : chosen.slice(0, room);
}

// Nats: below this nothing moved, whatever the sign.
const NO_MOVE = 5e-4;

/** Whether the update moved the sample against what was asked; null where it is not known or nothing was asked. */
export function against({ advantage, delta_logp: move }) {
  if (move === null || move === undefined || !advantage) return null;
  return Math.abs(move) >= NO_MOVE && move > 0 !== advantage > 0;
}

/** Indices of the tokens of `a` that are in no longest common subsequence with `b`. */
export function differing(a, b) {
  const [left, right] = [units(a), units(b)];
  const start = sharedPrefix(a, b);
  const n = left.length - start;
  const m = right.length - start;
  if (n * m > 4_000_000) return new Set(left.map((_, i) => i).filter((i) => i >= start));
  const width = m + 1;
  const longest = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i--)
    for (let j = m - 1; j >= 0; j--)
      longest[i * width + j] = left[start + i] === right[start + j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
  const out = new Set();
  let i = 0;
  let j = 0;
  while (i < n) {
    if (j < m && left[start + i] === right[start + j]) i++, j++;
    else if (j < m && longest[i * width + j + 1] >= longest[(i + 1) * width + j]) j++;
    else out.add(start + i++);
  }
  return out;
}
