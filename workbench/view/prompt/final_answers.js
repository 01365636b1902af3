// Final answers to one prompt over its visits, as a stacked flow: a column per visit, a band per final answer. Right ones are teal and at the
// bottom; wrong ones grey, the most frequent darkest; samples without a final answer are hatched.

import { oneLine, s } from "../common/dom.js";
import { count } from "../common/format.js";

const NAMED = 4; // wrong answers with a band of their own
/** Pixels of one visit at most: two visits do not need the whole page. */
export const WIDEST = 220;

/** Final answers of a visit's samples: [[final answer, count, right]], most frequent first. `undefined` means not extracted. */
export function tallyFinal(samples) {
  const by = new Map();
  for (const { said: final, right } of samples) {
    const key = `${right} ${final}`;
    if (!by.has(key)) by.set(key, [final, 0, right]);
    by.get(key)[1] += 1;
  }
  return [...by.values()].sort((a, b) => b[1] - a[1]);
}

/** Bands over all visits: [{final, right, none, shares: one a visit}], right first, then by frequency. */
export function bands(visits) {
  const by = new Map();
  visits.forEach((visit, v) => {
    const total = visit.answers.reduce((sum, [, count]) => sum + count, 0) || 1;
    for (const [final, count, right] of visit.answers) {
      const key = right ? "right" : final === null ? "none" : final === undefined ? "wrong" : `final ${final}`;
      if (!by.has(key)) by.set(key, { final, right: Boolean(right), none: final === null && !right, shares: new Array(visits.length).fill(0) });
      by.get(key).shares[v] += count / total;
    }
  });
  const size = (band) => band.shares.reduce((a, b) => a + b, 0);
  const right = [...by.values()].filter((band) => band.right);
  const none = [...by.values()].filter((band) => band.none);
  const wrong = [...by.values()].filter((band) => !band.right && !band.none).sort((a, b) => size(b) - size(a));
  const rest = wrong.slice(NAMED);
  const others = rest.length ? [{ final: count(rest.length, "other"), others: true, right: false, none: false, shares: visits.map((_, v) => rest.reduce((sum, band) => sum + band.shares[v], 0)) }] : [];
  return [...right, ...wrong.slice(0, NAMED), ...others, ...none];
}

/** The SVG. `chosen`: the index of the cursor's visit; columns carry data-visit. */
export function stackedFlow(visits, chosen, width, height = 220) {
  const [left, right, top, bottom] = [44, 116, 18, 24];
  const all = bands(visits);
  const step = Math.min(WIDEST, (width - left - right) / visits.length);
  width = left + step * visits.length + right;
  const wide = Math.max(2, Math.min(46, step * 0.56));
  const y = (share) => top + (1 - share) * (height - top - bottom);
  const centre = (v) => left + (v + 0.5) * step;
  const stacks = visits.map((_, v) => {
    let sum = 0;
    return all.map((band) => [sum, (sum += band.shares[v])]);
  });
  let wrongs = 0;
  const looks = all.map((band) => (band.right ? "right" : band.none ? "none" : band.others ? "others" : `wrong${wrongs++}`));
  const flows = all.map((_, b) => visits.slice(1).map((_, i) => {
    const [from, to] = [stacks[i][b], stacks[i + 1][b]];
    if (from[1] - from[0] < 1e-9 && to[1] - to[0] < 1e-9) return null;
    const [x0, x1] = [centre(i) + wide / 2, centre(i + 1) - wide / 2];
    const m = (x0 + x1) / 2;
    return s("path", { class: `flow ${looks[b]}`, d: `M${x0} ${y(from[1])}C${m} ${y(from[1])} ${m} ${y(to[1])} ${x1} ${y(to[1])}L${x1} ${y(to[0])}C${m} ${y(to[0])} ${m} ${y(from[0])} ${x0} ${y(from[0])}Z` });
  }));
  const columns = visits.map((visit, v) => s("g", { "data-visit": v, class: `visit ${v === chosen ? "on" : ""}` },
    s("rect", { x: centre(v) - step / 2, y: top - 14, width: step, height: height - top - bottom + 32, class: "hit" }),
    stacks[v].map(([low, high], b) => high - low > 1e-9 && [
      s("rect", { x: centre(v) - wide / 2, y: y(high), width: wide, height: Math.max(1, y(low) - y(high) - 1), class: `band ${looks[b]}` }),
      wide > 24 && y(low) - y(high) > 14 && typeof all[b].final === "string" && !all[b].others &&
        s("text", { x: centre(v), y: (y(low) + y(high)) / 2 + 3.5, "text-anchor": "middle", class: `m inband ${looks[b]}` }, oneLine(all[b].final, 5)),
    ]),
    (step > 26 || v % Math.ceil(26 / step) === 0) && s("text", { x: centre(v), y: height - 8, "text-anchor": "middle", class: v === chosen ? "t1" : "" }, visit.step)));
  const end = stacks[stacks.length - 1];
  const names = all.map((band, b) => ({ band, b, at: (end[b][0] + end[b][1]) / 2, size: end[b][1] - end[b][0] })).filter(({ size }) => size > 1e-9);
  const places = spreadDown(names.map(({ at }) => y(at)).map((at) => at + 4));
  return s("svg", { width, height, class: "river", role: "img", "aria-label": `Final answers over ${visits.length} visits` },
    [0, 0.5, 1].map((share) => [s("line", { x1: left - 4, x2: width - right + 4, y1: y(share), y2: y(share), class: share ? "grid" : "axis" }), s("text", { x: left - 9, y: y(share) + 4, "text-anchor": "end" }, `${share * 100} %`)]),
    flows, columns,
    names.map(({ band, b, size }, i) => s("text", { x: width - right + 8, y: places[i], class: `endname ${looks[b]}` }, `${named(band)}, ${Math.round(size * 100)} %`)));
}

function named({ final, right, none, others }) {
  if (right) return typeof final === "string" ? `right (${oneLine(final, 8)})` : "right";
  return none ? "no answer" : others ? final : final === undefined ? "wrong" : `says ${oneLine(final, 8)}`;
}

// Label positions from top to bottom, at least 13 px apart.
function spreadDown(positions) {
  const order = positions.map((_, i) => i).sort((a, b) => positions[a] - positions[b]);
  const out = [...positions];
  for (let k = 1; k < order.length; k++) out[order[k]] = Math.max(out[order[k]], out[order[k - 1]] + 13);
  return out;
}
