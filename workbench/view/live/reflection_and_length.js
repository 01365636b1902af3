// Two details of a step on the Live page. Reflection: the share of samples with a reflective word, their accuracy beside that of the
// others, and the share at the base model. Length: quantiles of the right, wrong and truncated samples.

import { h, part, s } from "../common/dom.js";
import { fixed, known, percent, plain } from "../common/format.js";
import { roundUp } from "../common/scale.js";
import { cursorFields } from "../common/search_query.js";
import { term } from "../common/tooltip.js";

const POOLED = 5; // steps that are counted together, since one step has few samples with a reflective word

/** `go(change)` moves the cursor, `link(change)` is the address of such a move. */
export function makeReflectionAndLength({ store, header, go, link }) {
  const element = h("section", { class: "panel stepdetails", "aria-label": "Reflection and length" });
  const draw = part(element, (now, base, lengths, step) => [
    now && reflection(now, base, header.search && { go, link, words: header.reflection_words }),
    lengths && lengthPicture(lengths, step),
  ]);
  return {
    element,
    /** `stepGroups`: the response of the step route; `step`: the step of the cursor. */
    update(stepGroups, step) {
      const { steps } = store.data;
      const at = steps.indexOf(step);
      const base = at > 0 && steps[0] === 0 ? pooled(store.data, 0, 0) : null;
      const now = at >= 0 ? pooled(store.data, Math.max(base ? 1 : 0, at - POOLED + 1), at) : null;
      const lengths = lengthsOf(stepGroups);
      element.hidden = !now && !lengths;
      draw.update(now, base, lengths, step);
    },
  };
}

/** Samples with and without a reflective word, and how many of each are right, over the steps at these indices. */
function pooled({ steps, metrics }, from, to) {
  const of = (name, i) => metrics[name]?.[i];
  const sum = { from: steps[from], to: steps[to], samples: 0, having: 0, rightWith: 0, rightWithout: 0 };
  for (let i = from; i <= to; i++) {
    const [share, mean, tokens] = [of("reflection/share", i), of("completions/mean_length", i), of("completions/tokens", i)];
    if (![share, mean, tokens].every(known) || !mean) continue;
    const n = Math.round(tokens / mean);
    const having = Math.round(share * n);
    sum.samples += n;
    sum.having += having;
    sum.rightWith += Math.round(having * (of("reflection/accuracy_with", i) ?? 0));
    sum.rightWithout += Math.round((n - having) * (of("reflection/accuracy_without", i) ?? 0));
  }
  return sum.samples ? sum : null;
}

const share = ({ having, samples }) => having / samples;
const outOf = (right, n) => (n ? `${right} of ${n} right (${percent(right / n)})` : "none");

/** Whether the two accuracies differ by more than chance (two-proportion z test at 95 %). */
function judged({ having, samples, rightWith, rightWithout }) {
  const lacking = samples - having;
  if (having < 5 || lacking < 5) return "Too few to tell whether it helps.";
  const both = (rightWith + rightWithout) / samples;
  const spread = Math.sqrt(both * (1 - both) * (1 / having + 1 / lacking));
  const gap = rightWith / having - rightWithout / lacking;
  if (!(Math.abs(gap) > 1.96 * spread)) return "No clear difference.";
  return gap > 0 ? "Right more often with." : "Right less often with: hard prompts may draw it.";
}

function reflection(now, base, search) {
  const to = search && { view: "search", ...cursorFields({ kind: "train", words: search.words.join(" "), step_min: now.from, step_max: now.to }) };
  return [
    h("h3", {}, term("reflection/share", "Reflection"), h("span", { class: "i3" }, now.from === now.to ? ` step ${now.to}` : ` steps ${now.from} to ${now.to}`)),
    h("p", { class: "detailline" }, base && h("span", { class: "i3" }, `${percent(share(base))} → `), h("b", {}, percent(share(now))), " of samples hold a word like “wait” or “check”."),
    h("dl", { class: "detailrows" },
      h("dt", {}, "with"), h("dd", {}, outOf(now.rightWith, now.having)),
      h("dt", {}, "without"), h("dd", {}, outOf(now.rightWithout, now.samples - now.having)),
      base && [h("dt", {}, "base model"), h("dd", {}, `${base.having} of ${base.samples} at step 0${base.having ? `, ${base.rightWith} of these right` : ""}`)]),
    h("p", { class: "note" }, now.having ? judged(now) : "Nothing to compare.",
      to && now.having > 0 && [" ", h("a", { class: "link nw", href: search.link(to), "data-key": "reflecting", on: { click: (event) => (event.preventDefault(), search.go(to)) } }, `Show the ${now.having}`)]),
  ];
}

const quantile = (sorted, q) => {
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(sorted.length - 1, low + 1)] - sorted[low]) * (at - low);
};

/** [{name, n, p10, p50, p90}] of right, wrong and truncated samples; kinds without a sample are left out. */
function lengthsOf({ groups }) {
  const samples = groups.flatMap((group) => group.samples);
  const rows = [
    ["right", (sample) => sample.right === true],
    ["wrong", (sample) => sample.right === false],
    ["cut", (sample) => sample.cut],
  ].map(([name, chosen]) => [name, samples.filter(chosen).map((sample) => sample.length).sort((a, b) => a - b)]);
  const there = rows.filter(([, lengths]) => lengths.length).map(([name, lengths]) => ({ name, n: lengths.length, p10: quantile(lengths, 0.1), p50: quantile(lengths, 0.5), p90: quantile(lengths, 0.9) }));
  return there.length ? there : null;
}

function lengthPicture(rows, step) {
  const [width, left, right, high] = [292, 74, 90, roundUp(Math.max(...rows.map((row) => row.p90))) || 1];
  const x = (value) => left + (value / high) * (width - left - right);
  const height = 22 * rows.length + 18;
  return [
    h("h3", {}, term("completions/mean_length", "Length"), h("span", { class: "i3" }, ` step ${step}, tokens: p10, median, p90`)),
    s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "lengthrows", role: "img", "aria-label": rows.map((row) => `${row.name}: ${row.n} samples, median ${fixed(row.p50, 0)} tokens, p10 ${fixed(row.p10, 0)}, p90 ${fixed(row.p90, 0)}`).join("; ") },
      s("line", { x1: x(0), x2: x(high), y1: height - 15, y2: height - 15, class: "hair" }),
      [0, high].map((value) => s("text", { x: x(value), y: height - 3, "text-anchor": value ? "end" : "start" }, plain(value))),
      rows.map((row, i) => {
        const y = 11 + 22 * i;
        return s("g", { class: `len-${row.name}` },
          s("text", { x: 0, y: y + 4, class: "t2" }, row.name), s("text", { x: left - 10, y: y + 4, "text-anchor": "end", class: "m" }, row.n),
          s("line", { x1: x(row.p10), x2: Math.max(x(row.p90), x(row.p10) + 1.5), y1: y, y2: y, class: "span" }),
          s("line", { x1: x(row.p50), x2: x(row.p50), y1: y - 6, y2: y + 6, class: "median" }),
          s("text", { x: width, y: y + 4, "text-anchor": "end", class: "m" }, `${fixed(row.p10, 0)} · ${fixed(row.p50, 0)} · ${fixed(row.p90, 0)}`));
      })),
  ];
}
