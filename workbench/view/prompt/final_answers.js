// Answers of one prompt as a river: a column a visit, a band an answer. Right is teal and at the bottom; wrong modes are
// grey, the most frequent darkest, so that one that takes over is seen; no answer is hatched.

import { oneLine, s } from "../common/dom.js";

const NAMED = 4;
/** Pixels of one visit at most: a prompt seen twice does not need the whole page. */
export const WIDEST = 220;

/** What the samples of a visit said: [[said, count, right]], most frequent first. No `said` at all means not extracted. */
export function answersOf(samples) {
  const by = new Map();
  for (const { said, right } of samples) {
    const key = `${right} ${said}`;
    if (!by.has(key)) by.set(key, [said, 0, right]);
    by.get(key)[1] += 1;
  }
  return [...by.values()].sort((a, b) => b[1] - a[1]);
}

/** Bands over all visits: [{said, right, counts: share per visit}], right first, then by how often it was said. */
export function bands(visits) {
  const by = new Map();
  visits.forEach((visit, v) => {
    const total = visit.answers.reduce((sum, [, count]) => sum + count, 0) || 1;
    for (const [said, count, right] of visit.answers) {
      const key = right ? "right" : said === null ? "none" : said === undefined ? "wrong" : `said ${said}`;
      if (!by.has(key)) by.set(key, { said, right: Boolean(right), none: said === null && !right, shares: new Array(visits.length).fill(0) });
      by.get(key).shares[v] += count / total;
    }
  });
  const size = (band) => band.shares.reduce((a, b) => a + b, 0);
  const right = [...by.values()].filter((band) => band.right);
  const none = [...by.values()].filter((band) => band.none);
  const wrong = [...by.values()].filter((band) => !band.right && !band.none).sort((a, b) => size(b) - size(a));
  const rest = wrong.slice(NAMED);
  const others = rest.length ? [{ said: `${rest.length} others`, others: true, right: false, none: false, shares: visits.map((_, v) => rest.reduce((sum, band) => sum + band.shares[v], 0)) }] : [];
  return [...right, ...wrong.slice(0, NAMED), ...others, ...none];
}

/** The picture. `chosen` is the index of the visit under the cursor; columns carry data-visit. */
export function river(visits, chosen, width, height = 220) {
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
      wide > 24 && y(low) - y(high) > 14 && typeof all[b].said === "string" && !all[b].others &&
        s("text", { x: centre(v), y: (y(low) + y(high)) / 2 + 3.5, "text-anchor": "middle", class: `m inband ${looks[b]}` }, oneLine(all[b].said, 5)),
    ]),
    (step > 26 || v % Math.ceil(26 / step) === 0) && s("text", { x: centre(v), y: height - 8, "text-anchor": "middle", class: v === chosen ? "t1" : "" }, visit.step)));
  const end = stacks[stacks.length - 1];
  const names = all.map((band, b) => ({ band, b, at: (end[b][0] + end[b][1]) / 2, size: end[b][1] - end[b][0] })).filter(({ size }) => size > 1e-9);
  const places = spreadDown(names.map(({ at }) => y(at)).map((at) => at + 4));
  return s("svg", { width, height, class: "river", role: "img", "aria-label": `Answers over ${visits.length} visits` },
    [0, 0.5, 1].map((share) => [s("line", { x1: left - 4, x2: width - right + 4, y1: y(share), y2: y(share), class: share ? "grid" : "axis" }), s("text", { x: left - 9, y: y(share) + 4, "text-anchor": "end" }, `${share * 100} %`)]),
    flows, columns,
    names.map(({ band, b, size }, i) => s("text", { x: width - right + 8, y: places[i], class: `endname ${looks[b]}` }, `${named(band)}, ${Math.round(size * 100)} %`)));
}

function named({ said, right, none, others }) {
  if (right) return typeof said === "string" ? `right (${oneLine(said, 8)})` : "right";
  return none ? "no answer" : others ? said : said === undefined ? "wrong" : `says ${oneLine(said, 8)}`;
}

// Names from top to bottom, 13 px apart.
function spreadDown(positions) {
  const order = positions.map((_, i) => i).sort((a, b) => positions[a] - positions[b]);
  const out = [...positions];
  for (let k = 1; k < order.length; k++) out[order[k]] = Math.max(out[order[k]], out[order[k - 1]] + 13);
  return out;
}
