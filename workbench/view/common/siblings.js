// The samples of one group compared: their shared prefixes, where they diverge, and which of them to show side by side.

import { isUp } from "./dots.js";

/** The ids of a sample's tokens, or the characters of its text where token arrays were not kept. */
export const units = (sample) => sample.tokens?.ids ?? [...sample.text.slice(0, 4000)];

/** How many units two samples share before they diverge. */
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

/** The other samples with exactly this text. */
export const twins = (sample, samples) => samples.filter((other) => other.index !== sample.index && same(other, sample));

const byReward = (a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity) || a.length - b.length || a.index - b.index;

/** The sample on the other side of the mean that shares the longest prefix with this one; null for none. */
export function nearestOpposite(sample, samples) {
  const others = samples.filter((other) => isUp(other) !== isUp(sample) && other.reward !== null);
  return others.sort((a, b) => sharedPrefix(sample, b) - sharedPrefix(sample, a) || Math.abs(a.length - sample.length) - Math.abs(b.length - sample.length))[0] ?? null;
}

/** One more sample with another text than those chosen: the one that shares the longest prefix with the first. */
function another(chosen, samples) {
  const free = samples.filter((sample) => !chosen.some((other) => other.index === sample.index || same(other, sample)) && sample.reward !== null);
  return free.sort((a, b) => sharedPrefix(chosen[0], b) - sharedPrefix(chosen[0], a) || byReward(a, b))[0] ?? samples.find((sample) => !chosen.includes(sample)) ?? null;
}

/** The right and the wrong sample with the longest shared prefix: the choice that decided the reward. */
export function closestPair(samples) {
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

/** At most `count` samples to show as cards: the picked one (else the right one of the closest pair), some that differ, its nearest opposite. */
export function chooseCards(samples, picked, count) {
  const first = samples.find((sample) => sample.index === picked) ?? closestPair(samples)?.[0] ?? [...samples].sort(byReward)[0];
  if (!first) return [];
  const opposite = nearestOpposite(first, samples);
  const chosen = [first, opposite].filter(Boolean);
  while (chosen.length < Math.min(count, samples.length)) {
    const next = another(chosen, samples);
    if (!next) break;
    chosen.push(next);
  }
  // The picked one first and its opposite last: the two sides of the group at the two sides of the page.
  return opposite ? [first, ...chosen.slice(2), opposite].slice(0, Math.max(count, 2)) : chosen.slice(0, count);
}

// Nats: a smaller change of log p counts as none.
const NO_MOVE = 5e-4;

/** Whether the update changed log p against the sign of the advantage; null where either is unknown or the advantage is 0. */
export function against({ advantage, delta_logp: move }) {
  if (move === null || move === undefined || !advantage) return null;
  return Math.abs(move) >= NO_MOVE && move > 0 !== advantage > 0;
}

/** Indices of the tokens of `a` that are not in its longest common subsequence with `b`. */
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
