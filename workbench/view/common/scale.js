// Round numbers for axes.

const STEPS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The smallest round number that is not below `value` (0 for nothing). */
export function roundUp(value) {
  if (!(value > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return STEPS.map((step) => Number((step * power).toPrecision(3))).find((round) => round >= value * 0.999);
}

/** Axis ticks from 0 to `last`: about `count` round numbers, and always the last step. */
export function ticks(last, count) {
  if (last <= 0) return [0];
  const rough = Math.max(1, last / Math.max(1, count));
  const power = 10 ** Math.floor(Math.log10(rough));
  const by = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const all = [];
  for (let step = 0; step < last - by * 0.5; step += by) all.push(step);
  return [...all, last];
}

/** Push label positions apart so that none is nearer than `gap` to the next, inside [low, high]. Sorted input, sorted output. */
export function spread(positions, gap, low, high) {
  const out = [...positions];
  for (let round = 0; round < 6; round++)
    for (let i = 1; i < out.length; i++) {
      const lacks = gap - (out[i] - out[i - 1]);
      if (lacks > 0) {
        out[i - 1] -= lacks / 2;
        out[i] += lacks / 2;
      }
    }
  for (let i = 0; i < out.length; i++) out[i] = Math.max(out[i], low + i * gap);
  for (let i = out.length - 1; i >= 0; i--) out[i] = Math.min(out[i], high - (out.length - 1 - i) * gap);
  return out;
}
