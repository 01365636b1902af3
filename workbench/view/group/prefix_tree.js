// The group as a prefix tree: where its samples diverge, and how those of each branch scored. One row a sample, tokens from left to
// right; a box is a stretch of tokens that all its rows share, coloured by their mean advantage.

import { h, oneLine, s } from "../common/dom.js";
import { isUp } from "../common/dots.js";
import { count, fixed, known, listed, signed } from "../common/format.js";
import { units } from "../common/siblings.js";

const CHARACTER_WIDTH = 6.7; // px, of the labels
const LEVELS = [0.04, 0.2, 0.5]; // |A|, as the lenses colour it

/** {from, to, samples, children, ended, advantage}: the tokens [from, to) that all of `samples` share, and a child for each next token. */
export function prefixTree(samples, from = 0) {
  const all = samples.map(units);
  const shortest = Math.min(...all.map((ids) => ids.length));
  let to = from;
  while (to < shortest && all.every((ids) => ids[to] === all[0][to])) to++;
  const next = new Map();
  samples.forEach((sample, i) => {
    if (all[i].length > to) next.set(all[i][to], [...(next.get(all[i][to]) ?? []), sample]);
  });
  const ended = samples.filter((_, i) => all[i].length === to);
  const children = samples.length === 1 || ended.length === samples.length ? [] : [...next.values()].map((those) => prefixTree(those, to));
  if (samples.length === 1) to = all[0].length;
  const advantages = samples.map((sample) => sample.advantage).filter(known);
  const advantage = advantages.length ? advantages.reduce((sum, a) => sum + a, 0) / advantages.length : null;
  children.sort((a, b) => (b.advantage ?? -Infinity) - (a.advantage ?? -Infinity) || b.samples.length - a.samples.length);
  return { from, to, samples, children, ended: children.length ? ended : [], advantage };
}

/** Every node with its first row and its depth, parents before children; samples that end where others go on come last. */
export function rows(node, row = 0, depth = 1, parent = null, out = []) {
  const here = { node, row, depth, parent };
  out.push(here);
  let next = row;
  for (const child of node.children) {
    rows(child, next, depth + 1, here, out);
    next += child.samples.length;
  }
  return out;
}

// Token positions to pixels: a stretch between two forks is as wide as the logarithm of its length, so that a fork at token 20 and an
// end at token 1,000 both fit.
function scale(placed, width) {
  const stops = [...new Set([0, ...placed.flatMap(({ node }) => [node.from, node.to])])].sort((a, b) => a - b);
  const weights = stops.slice(1).map((stop, i) => Math.log2(2 + stop - stops[i]));
  const unit = width / Math.max(1e-9, weights.reduce((sum, weight) => sum + weight, 0));
  const at = new Map([[stops[0], 0]]);
  weights.forEach((weight, i) => at.set(stops[i + 1], at.get(stops[i]) + weight * unit));
  return (token) => at.get(token);
}

const shade = (advantage) => {
  if (!known(advantage)) return "";
  const level = LEVELS.filter((cut) => Math.abs(advantage) >= cut).length;
  return level ? `${advantage > 0 ? "p" : "n"}${level}` : "";
};

// The samples that end in a box, each with its row: all of a leaf, or those that end where the others go on.
const ends = ({ node, row }) => (node.children.length ? node.ended.map((sample, i) => [sample, row + node.samples.length - node.ended.length + i]) : node.samples.map((sample, i) => [sample, row + i]));

const number = (sample) => `#${sample.index + 1}`;
const nodeText = (node) => {
  const { tokens, text } = node.samples[0];
  return tokens ? tokens.text.slice(node.from, Math.min(node.to, node.from + 200)).join("") : [...text].slice(node.from, node.to).join("");
};

/** A branch in a sentence: its samples, how they scored, and their mean advantage. */
export function describeBranch(node) {
  const { samples, from, to, advantage } = node;
  const all = samples.length === 1 ? `${number(samples[0])} alone` : samples.length <= 6 ? listed(samples.map(number)) : `${samples.length} samples`;
  const graded = samples.some((sample) => sample.right === null);
  const scored = samples.map((sample) => sample.reward).filter(known);
  const outcome = graded || !scored.length ? (scored.length ? `mean reward ${fixed(scored.reduce((a, b) => a + b, 0) / scored.length)}` : "no reward") : `${samples.filter((sample) => sample.right).length} of ${samples.length} right`;
  const unit = samples[0].tokens ? "token" : "character";
  const stretch = to - from < 2 ? `${unit} ${from + 1}` : `${unit}s ${from + 1} to ${to}`;
  return `${all}, ${stretch}: ${outcome}${known(advantage) ? `, ${samples.length > 1 ? "mean " : ""}A ${signed(advantage)}` : ""}.`;
}

/**
 * The tree as SVG. `chosen`: indices of the samples whose cards are open; `onPick(node)` is called on click or Enter, `onRest(node)` on
 * hover. One box is in the tab order; arrows move to the parent, the first child and the boxes above and below.
 */
export function treePicture({ samples, chosen, width, onPick, onRest }) {
  const tree = prefixTree(samples);
  const placed = rows(tree);
  const high = samples.length > 24 ? 14 : samples.length > 12 ? 18 : 20;
  const x = scale(placed, width);
  const isChosen = (node) => chosen && node.samples.length === chosen.size && node.samples.every((sample) => chosen.has(sample.index));
  const home = placed.find(({ node }) => isChosen(node)) ?? placed[0];
  const boxes = new Map();

  const box = (here) => {
    const { node, row, depth } = here;
    const left = x(node.from);
    const wide = Math.max(3, x(node.to) - left - 2);
    const tall = node.samples.length * high - 2;
    const alone = node.samples.length === 1;
    const name = alone ? `${number(node.samples[0])} ` : "";
    const characters = Math.floor((wide - (ends(here).length ? 20 : 8)) / CHARACTER_WIDTH) - name.length;
    const words = characters >= 1 && tall >= 11 ? oneLine(nodeText(node).replace(/\n/g, "↵"), characters) : "";
    const drawn = s("g", {
      class: `branch ${isChosen(node) ? "picked" : ""}`, role: "treeitem", tabindex: here === home ? 0 : -1, "aria-level": depth, "aria-selected": String(Boolean(isChosen(node))),
      "aria-label": `${describeBranch(node)} ${oneLine(nodeText(node), 60)}`, "data-branch": `${node.from}-${node.samples[0].index}`, "data-key": `branch-${node.from}-${node.samples[0].index}`,
      on: { click: () => onPick(node), pointerenter: () => onRest(node), focus: () => onRest(node), pointerleave: () => onRest(null) },
    },
      s("rect", { x: left, y: row * high, width: wide, height: Math.max(3, tall), rx: 2, class: shade(node.advantage) }),
      words && s("text", { x: left + 5, y: row * high + Math.min(tall / 2, high * 0.5 + 40) + 4, class: "m" }, alone && s("tspan", { class: "who" }, name), words),
      ends(here).map(([sample, at]) => s("circle", { cx: left + wide - 7, cy: at * high + high / 2 - 1, r: isUp(sample) ? 3.4 : 3, class: `dot ${isUp(sample) ? "up" : "down"}` })));
    boxes.set(here, drawn);
    return drawn;
  };

  const first = Math.max(...placed.map(({ node }) => node.to));
  const ticks = [...new Set([tree.to, first])].filter((token) => token > 0);
  const height = samples.length * high;
  const svg = s("svg", { width, height: height + 16, class: "tree", role: "tree", "aria-label": "Where the samples diverge" },
    placed.map(box),
    ticks.map((token, i) => s("text", { x: i === ticks.length - 1 ? width - 2 : x(token), y: height + 12, "text-anchor": i === ticks.length - 1 ? "end" : "middle" }, i === ticks.length - 1 ? `token ${token}` : token)));

  svg.addEventListener("keydown", (event) => {
    const here = placed.find((one) => boxes.get(one) === document.activeElement);
    if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
    const level = placed.filter(({ depth }) => depth === here.depth);
    const to = {
      ArrowRight: () => placed.find(({ parent }) => parent === here),
      ArrowLeft: () => here.parent,
      ArrowDown: () => level[level.indexOf(here) + 1],
      ArrowUp: () => level[level.indexOf(here) - 1],
      Home: () => placed[0],
    }[event.key];
    if (to) {
      event.preventDefault();
      const next = to();
      if (next) (boxes.get(here).setAttribute("tabindex", -1), boxes.get(next).setAttribute("tabindex", 0), boxes.get(next).focus());
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onPick(here.node);
    }
  });
  return svg;
}

/** The tree with a line that describes the branch under the pointer. */
export function treePanel({ group, chosen, width, onPick }) {
  const forks = rows(prefixTree(group.samples)).filter(({ node }) => node.children.length + node.ended.length > 1).length;
  const rest = chosen ? "" : forks ? `${count(forks, "fork")}. Blue leads up, orange down. Tap a branch to show its samples.` : "All samples are the same.";
  const line = h("p", { class: "note", role: "status" });
  const describe = (node) => (line.textContent = node ? describeBranch(node) : chosen ? describeBranch({ ...branchOf(group.samples, chosen) }) : rest);
  const picture = treePicture({ samples: group.samples, chosen, width, onPick, onRest: describe });
  describe(null);
  return h("div", { class: "treebox" }, picture, line);
}

// The node with exactly these samples.
const branchOf = (samples, chosen) =>
  rows(prefixTree(samples)).map(({ node }) => node).find((node) => node.samples.length === chosen.size && node.samples.every((sample) => chosen.has(sample.index))) ?? prefixTree(samples.filter((sample) => chosen.has(sample.index)));
