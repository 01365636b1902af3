// What the update did: the table of samples with A and Δ log p, their scatter plot, shares of the gradient, and reward parts.

import { h, oneLine, s, visible } from "../common/dom.js";
import { isUp, mark } from "../common/dots.js";
import { count, fixed, known, listed, percent, plain, signed, word } from "../common/format.js";
import { roundUp } from "../common/scale.js";
import { against } from "../common/siblings.js";
import { term } from "../common/tooltip.js";

const number = (sample) => `#${sample.index + 1}`;

/** Right before wrong, those that moved against their advantage first, then by reward and share of the gradient. */
export const order = (samples) =>
  [...samples].sort((a, b) => isUp(b) - isUp(a) || (against(b) === true) - (against(a) === true) || (b.reward ?? 0) - (a.reward ?? 0) || (b.gradient_share ?? 0) - (a.gradient_share ?? 0) || a.index - b.index);

/** The table of all samples. `shown`: indices of those with a card; `other`: advantages of a what-if, or null. */
export function samplesTable({ group, shown, picked, graded, other = null, onPick }) {
  const { samples } = group;
  const measured = samples.some((sample) => known(sample.delta_logp));
  const largest = Math.max(1e-9, ...samples.map((sample) => Math.abs(sample.delta_logp ?? 0)));
  const extracted = samples.some((sample) => sample.said !== null && sample.said !== undefined);
  const choose = (index) => () => onPick(index);
  return [
    h("div", { class: "ph" }, h("h2", {}, group.divisor ? `${samples.length} samples: advantage and effect of the update` : `${samples.length} samples of a held-out evaluation`)),
    h("div", { class: "sibscroll", tabindex: 0, role: "region", "aria-label": "Table of samples" }, h("table", {},
      h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, "#"), h("th", { scope: "col" }, h("span", { class: "unseen" }, "right or wrong")),
        extracted && h("th", { class: "r", scope: "col", title: "The final answer" }, "Answer"), (graded || !extracted) && h("th", { class: "r", scope: "col" }, "r"), h("th", { class: "r", scope: "col" }, "Len"),
        group.divisor && h("th", { class: "r", scope: "col" }, term("advantage", "A")), other && h("th", { class: "r", scope: "col" }, "What if"), measured && [h("th", { class: "r", scope: "col" }, term("delta_logp", "Δ log p")), h("th", { class: "movecol", scope: "col" }, other ? h("span", { class: "unseen" }, "after the step") : "after the step"), h("th", { scope: "col" }, h("span", { class: "unseen" }, "against"))])),
      h("tbody", {}, order(samples).map((sample) => h("tr", { class: `${shown.includes(sample.index) ? "on" : ""} ${sample.index === picked ? "picked" : ""}`, on: { click: choose(sample.index) } },
        h("td", { class: "mono" }, h("button", { type: "button", class: "link quiet", "aria-pressed": String(sample.index === picked), "aria-label": `Pick sample ${sample.index + 1}`, "data-key": `sib-${sample.index}` }, sample.index + 1)),
        h("td", {}, mark(sample)),
        extracted && h("td", { class: "r mono finalcell" }, sample.said === null || sample.said === undefined ? "–" : oneLine(sample.said, 14)),
        (graded || !extracted) && h("td", { class: "r mono" }, known(sample.reward) ? fixed(sample.reward) : h("span", { class: "crit", title: "no score" }, "error")),
        h("td", { class: "r mono i2" }, sample.length),
        group.divisor && h("td", { class: `r mono ${sample.advantage > 0 ? "pos" : sample.advantage < 0 ? "neg" : "i3"}` }, signed(sample.advantage)),
        other && otherCell(sample, other[samples.indexOf(sample)]),
        measured && [
          h("td", { class: "r mono" }, signed(sample.delta_logp)),
          h("td", { class: `movecol ${other ? "tight" : ""}` }, moveBar(sample.delta_logp, largest, other ? 44 : 84)),
          h("td", { class: "markcol" }, against(sample) && h("span", { class: "chip warn", role: "img", "aria-label": "moved against its advantage" }, "≠"))]))))),
    h("p", { class: "sentence" }, !group.divisor ? "Held-out evaluations train nothing: these samples have no advantage." : measured ? verdict(samples) : "Log-probabilities after the update were not computed at this step (probe_every)."),
  ];
}

/** A sample's advantage under other settings; one beyond a smaller group size would not have been drawn. */
function otherCell(sample, advantage) {
  if (!known(advantage)) return h("td", { class: "r i3", title: "would not have been drawn" }, "–");
  const turned = advantage * sample.advantage < 0;
  return h("td", { class: `r mono ${advantage > 0 ? "pos" : advantage < 0 ? "neg" : "i3"} ${turned ? "b" : ""}`, title: turned ? "pushed the other way" : null }, signed(advantage));
}

function moveBar(value, largest, width) {
  if (!known(value)) return "–";
  const zero = width * 0.6;
  const longest = value < 0 ? zero - 1 : width - zero - 1;
  const unit = Math.min(zero, width - zero) / largest;
  const length = Math.max(1.5, Math.min(longest, Math.abs(value) * (value < 0 ? (zero - 1) / largest : unit)));
  return s("svg", { width, height: 16, class: "move", "aria-hidden": "true" }, s("line", { x1: zero, x2: zero, y1: 0, y2: 16, class: "hair" }),
    s("rect", { x: value < 0 ? zero - length : zero, y: 3.5, width: length, height: 9, rx: 1, class: value < 0 ? "downfill" : "upfill" }));
}

/** "9 of 12 moved with their advantage. ≠ marks three that did not: #4 and #12 have A > 0 yet fell, #5 has A < 0 yet rose." */
function verdict(samples) {
  const judged = samples.filter((sample) => against(sample) !== null);
  if (!judged.length) return "This group teaches nothing: every advantage is 0.";
  const opposed = judged.filter(against);
  const fell = opposed.filter((sample) => sample.advantage > 0).map(number);
  const rose = opposed.filter((sample) => sample.advantage < 0).map(number);
  if (!opposed.length) return `All ${judged.length} moved with their advantage.`;
  const short = (list) => (list.length > 4 ? `${word(list.length)} of them` : listed(list));
  const parts = [fell.length && `${short(fell)} ${fell.length === 1 ? "has" : "have"} A > 0 yet fell`, rose.length && `${short(rose)} ${rose.length === 1 ? "has" : "have"} A < 0 yet rose`].filter(Boolean);
  return `${judged.length - opposed.length} of ${judged.length} moved with their advantage. ≠ marks ${word(opposed.length)} that did not: ${parts.join(", ")}. Shared tokens, clipping or the KL penalty can outweigh an advantage.`;
}

/** A across, Δ log p up; in the tinted corners both have the same sign. */
export function scatter(samples, picked, width = 258, height = 166) {
  const there = samples.filter((sample) => known(sample.delta_logp) && known(sample.advantage) && known(sample.reward));
  if (!there.length) return null;
  const [left, right, top, bottom] = [42, 10, 8, 20];
  const spanX = Math.max(0.5, ...there.map((sample) => Math.abs(sample.advantage)));
  const lowX = Math.min(-0.3 * spanX, ...there.map((sample) => sample.advantage)) - 0.25 * spanX;
  const highX = Math.max(0.3 * spanX, ...there.map((sample) => sample.advantage)) + 0.3 * spanX;
  const moves = there.map((sample) => sample.delta_logp);
  const reach = Math.max(1e-3, ...moves.map(Math.abs));
  const highY = Math.max(roundUp(Math.max(0, ...moves)), reach * 0.3) * 1.1;
  const lowY = -Math.max(roundUp(Math.max(0, ...moves.map((move) => -move))), reach * 0.3) * 1.1;
  const x = (a) => left + ((a - lowX) / (highX - lowX)) * (width - left - right);
  const y = (d) => top + ((highY - d) / (highY - lowY)) * (height - top - bottom);
  const digits = reach < 0.5 ? 2 : 1;
  const marked = [...new Set([Math.min(...there.map((sample) => sample.advantage)), Math.max(...there.map((sample) => sample.advantage))])].filter((a) => Math.abs(a) > 1e-6);
  const named = there.filter((sample) => against(sample)).slice(0, 4);
  const most = [...there].sort((a, b) => Math.abs(b.delta_logp) - Math.abs(a.delta_logp))[0];
  if (most && !named.includes(most)) named.push(most);
  const seen = new Map();
  const points = there.map((sample) => {
    const spot = `${x(sample.advantage).toFixed(0)}/${(y(sample.delta_logp) / 7).toFixed(0)}`;
    const nth = Math.min(5, seen.get(spot) ?? 0); // more lie on top of each other
    seen.set(spot, nth + 1);
    const side = sample.advantage > 0 && x(sample.advantage) > width - 70 ? -1 : 1;
    return { sample, cx: x(sample.advantage) + side * nth * 7, cy: y(sample.delta_logp), side };
  });
  return s("svg", { width, height, class: "scatter", role: "img", "aria-label": `${there.filter((sample) => against(sample) === false).length} of ${there.length} samples moved with their advantage` },
    s("rect", { x: x(0), y: top, width: width - right - x(0), height: y(0) - top, class: "corner up" }), s("rect", { x: left, y: y(0), width: x(0) - left, height: height - bottom - y(0), class: "corner down" }),
    s("line", { x1: left, x2: width - right, y1: y(0), y2: y(0), class: "axis" }), s("line", { x1: x(0), x2: x(0), y1: top, y2: height - bottom, class: "axis" }),
    [[0, "0"], [Math.max(...moves, 0), null], [Math.min(...moves, 0), null]].filter(([value, text]) => text || Math.abs(y(value) - y(0)) > 12).map(([value, text]) => s("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end", class: "m" }, text ?? signed(value, digits))),
    marked.map((a) => s("text", { x: x(a), y: height - 5, "text-anchor": "middle", class: "m" }, signed(a))),
    s("text", { x: x(0) - 5, y: height - bottom - 5, "text-anchor": "end" }, "with A"), s("text", { x: x(0) + 5, y: top + 12 }, "with A"), s("text", { x: width - right - 4, y: height - bottom - 5, "text-anchor": "end" }, "against A"),
    points.map(({ sample, cx, cy }) => s("circle", { cx, cy, r: 3.8, class: `dot ${isUp(sample) ? "up" : "down"} ${against(sample) ? "broken" : ""} ${sample.index === picked ? "picked" : ""}`, "data-sample": sample.index })),
    labels(points.filter(({ sample }) => named.includes(sample)), top, height - bottom));
}

function labels(points, top, bottom) {
  const placed = [];
  return points.sort((a, b) => a.cy - b.cy).map(({ sample, cx, cy, side }) => {
    let y = Math.max(top + 9, Math.min(bottom - 2, cy + 4));
    for (const other of placed) if (other.side === side && Math.abs(other.y - y) < 12 && Math.abs(other.cx - cx) < 40) y = other.y + 12;
    placed.push({ y, side, cx });
    return s("text", { x: cx - side * -9, y, "text-anchor": side > 0 ? "start" : "end", class: "t2" }, number(sample));
  });
}

/** How much of the step this group is, and how its samples divide it. */
export function sharePanel(group, shares, width = 258) {
  const total = shares.reduce((sum, one) => sum + (one.gradient_share ?? 0), 0);
  const mine = group.gradient_share ?? 0;
  const rank = shares.findIndex((one) => one.k === group.k) + 1;
  const samples = [...group.samples].filter((sample) => sample.gradient_share > 0).sort((a, b) => b.gradient_share - a.gradient_share);
  let x = 0;
  const next = (share, sum) => {
    const at = x;
    x += (share / sum) * width;
    return [at, Math.max(0.5, (share / sum) * width - 1)];
  };
  const alive = shares.filter((one) => one.gradient_share > 0).sort((a, b) => a.k - b.k);
  const above = total > 0 ? alive.map((one) => [one, ...next(one.gradient_share, total)]) : [];
  x = 0;
  const below = mine > 0 ? samples.map((sample) => [sample, ...next(sample.gradient_share, mine)]) : [];
  return [
    h("h3", {}, term("gradient_share", "Share of the gradient")),
    mine > 0 ? h("p", {}, "This group is ", h("b", {}, percent(mine)), ` of step ${group.step}, rank ${rank} of ${shares.length}.`) : h("p", {}, `None: this group is dead; the gradient comes from the other ${shares.length - 1}.`),
    h("div", { class: "barscroll" }, s("svg", { width, height: 40, class: "sharebars", role: "img", "aria-label": `Share of each group of the step, and of each sample of this one` },
      above.map(([one, at, wide]) => s("rect", { x: at, y: 0, width: wide, height: 9, class: one.k === group.k ? "mine" : "theirs" })),
      below.map(([sample, at, wide]) => s("g", {}, s("rect", { x: at, y: 15, width: wide, height: 11, class: sample.advantage > 0 ? "upfill" : "downfill", "data-sample": sample.index }),
        wide > 17 && s("text", { x: at + wide / 2, y: 38, "text-anchor": "middle", class: "m" }, sample.index + 1))))),
  ];
}

/** The reward of one sample, part by part; a failed part with its reason. `onCode(name)` shows the code of a part, null where there is no server. */
export function partsPanel(sample, header, onCode = null) {
  const named = (name) => (onCode ? h("button", { type: "button", class: "link partname", title: "Show the lines of this reward", "data-key": `part-${name}`, on: { click: () => onCode(name) } }, oneLine(name, 24)) : oneLine(name, 24));
  const watched = Object.fromEntries(header.rewards.map((reward) => [reward.name, reward.enabled === false || reward.weight === 0]));
  const counted = Object.keys(sample.rewards).filter((name) => !watched[name]);
  return [
    h("h3", {}, `Reward parts of ${number(sample)}`),
    h("table", { class: "parts" }, h("tbody", {},
      Object.entries(sample.rewards).map(([name, value]) => {
        const weight = sample.weights?.[name] ?? 1;
        return value === null
          ? [h("tr", {}, h("td", {}, named(name)), h("td", { class: "r crit", colspan: 3 }, "error: no score")), h("tr", { class: "reason" }, h("td", { colspan: 4 }, visible(sample.reasons?.[name] ?? "No reason was recorded.", 400)))]
          : h("tr", {}, h("td", {}, named(name)), h("td", { class: "r mono" }, fixed(value)), h("td", { class: "r mono" }, `× ${plain(weight)}`), watched[name] ? h("td", { class: "r i3" }, "watched only") : h("td", { class: "r mono" }, `= ${fixed(value * weight)}`));
      }),
      h("tr", { class: "total" }, h("td", { class: "b" }, "total r"), h("td", {}), h("td", {}), h("td", { class: "r mono b" }, known(sample.reward) ? `= ${fixed(sample.reward)}` : "none")))),
    counted.length > 1 && sample.rewards && Object.values(sample.rewards).includes(null) && h("p", {}, "Left out of the group's mean and std."),
  ];
}

/** One sentence under the scatter: who moved most. */
export function scatterSentence(samples) {
  const there = samples.filter((sample) => known(sample.delta_logp));
  if (!there.length) return "";
  const most = [...there].sort((a, b) => Math.abs(b.delta_logp) - Math.abs(a.delta_logp))[0];
  const size = Math.abs(most.delta_logp);
  const times = Math.exp(size);
  const factor = times > 1000 ? "more than 1,000" : fixed(times, times > 10 ? 0 : 1);
  return `${number(most)} ${most.delta_logp < 0 ? "fell" : "rose"} by ${fixed(size, size < 0.1 ? 3 : size < 1 ? 2 : 1)} nats, the most: it is now ${factor} times ${most.delta_logp < 0 ? "less" : "more"} likely.`;
}
