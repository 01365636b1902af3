// The group as a tree: where siblings part, and how those below each branch fared. One row a sample, tokens from left to
// right; a box is a run of tokens that all its rows share, coloured by the mean advantage of those rows.

import { h, oneLine, s } from "../common/dom.js";
import { isUp } from "../common/dots.js";
import { count, fixed, known, listed, signed } from "../common/format.js";
import { units } from "../common/siblings.js";

const LETTER = 6.7; // px of a character of the labels
const DIVERGING = [0.04, 0.2, 0.5];

/** {from, to, samples, children, advantage}: the tokens that all of `samples` share from `from` on, and how they go on. */
export function prefixTree(samples, from = 0) {
  const all = samples.map(units);
  const shortest = Math.min(...all.map((ids) => ids.length));
  let to = from;
  while (to < shortest && all.every((ids) => ids[to] === all[0][to])) to++;
  const ways = new Map();
  samples.forEach((sample, i) => {
    if (all[i].length > to) ways.set(all[i][to], [...(ways.get(all[i][to]) ?? []), sample]);
  });
  const ended = samples.filter((_, i) => all[i].length === to);
  const children = samples.length === 1 || ended.length === samples.length ? [] : [...ways.values()].map((those) => prefixTree(those, to));
  if (samples.length === 1) to = all[0].length;
  const asked = samples.map((sample) => sample.advantage).filter(known);
  const advantage = asked.length ? asked.reduce((sum, a) => sum + a, 0) / asked.length : null;
  children.sort((a, b) => (b.advantage ?? -Infinity) - (a.advantage ?? -Infinity) || b.samples.length - a.samples.length);
  return { from, to, samples, children, ended: children.length ? ended : [], advantage };
}

/** Every node with its first row and its depth, parents before children; answers that end at a fork stand under it. */
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

// Token positions to pixels: a stretch between two forks is as wide as the logarithm of its tokens, so that a fork at
// token 20 and an end at token 1,000 both find room.
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
  const level = DIVERGING.filter((cut) => Math.abs(advantage) >= cut).length;
  return level ? `${advantage > 0 ? "p" : "n"}${level}` : "";
};

// The answers that end in a box, each with its row: all of a leaf, or those that stop where the others part.
const ends = ({ node, row }) => (node.children.length ? node.ended.map((sample, i) => [sample, row + node.samples.length - node.ended.length + i]) : node.samples.map((sample, i) => [sample, row + i]));

const number = (sample) => `#${sample.index + 1}`;
const spoken = (node) => {
  const { tokens, text } = node.samples[0];
  return tokens ? tokens.text.slice(node.from, Math.min(node.to, node.from + 200)).join("") : [...text].slice(node.from, node.to).join("");
};

/** A branch in a sentence: who goes this way, how they fared, what was asked of them on average. */
export function sentence(node) {
  const { samples, from, to, advantage } = node;
  const all = samples.length === 1 ? `${number(samples[0])} alone` : samples.length <= 6 ? listed(samples.map(number)) : `${samples.length} answers`;
  const graded = samples.some((sample) => sample.right === null);
  const scored = samples.map((sample) => sample.reward).filter(known);
  const fared = graded || !scored.length ? (scored.length ? `mean reward ${fixed(scored.reduce((a, b) => a + b, 0) / scored.length)}` : "no reward") : `${samples.filter((sample) => sample.right).length} of ${samples.length} right`;
  const unit = samples[0].tokens ? "token" : "character";
  const stretch = to - from < 2 ? `${unit} ${from + 1}` : `${unit}s ${from + 1} to ${to}`;
  return `${all}, ${stretch}: ${fared}${known(advantage) ? `, ${samples.length > 1 ? "mean " : ""}A ${signed(advantage)}` : ""}.`;
}

/**
 * The picture. `chosen` is the set of sample indices that are laid open below; `onPick(node)` follows a click or Enter.
 * One box is in the tab order; arrows go to the parent, the first child and the boxes above and below.
 */
export function treePicture({ samples, chosen, width, onPick, onRest }) {
  const tree = prefixTree(samples);
  const placed = rows(tree);
  const high = samples.length > 24 ? 14 : samples.length > 12 ? 18 : 20;
  const x = scale(placed, width);
  const whole = (node) => chosen && node.samples.length === chosen.size && node.samples.every((sample) => chosen.has(sample.index));
  const home = placed.find(({ node }) => whole(node)) ?? placed[0];
  const boxes = new Map();

  const box = (here) => {
    const { node, row, depth } = here;
    const left = x(node.from);
    const wide = Math.max(3, x(node.to) - left - 2);
    const tall = node.samples.length * high - 2;
    const alone = node.samples.length === 1;
    const name = alone ? `${number(node.samples[0])} ` : "";
    const room = Math.floor((wide - (ends(here).length ? 20 : 8)) / LETTER) - name.length;
    const words = room >= 1 && tall >= 11 ? oneLine(spoken(node).replace(/\n/g, "↵"), room) : "";
    const drawn = s("g", {
      class: `branch ${whole(node) ? "picked" : ""}`, role: "treeitem", tabindex: here === home ? 0 : -1, "aria-level": depth, "aria-selected": String(Boolean(whole(node))),
      "aria-label": `${sentence(node)} ${oneLine(spoken(node), 60)}`, "data-branch": `${node.from}-${node.samples[0].index}`, "data-key": `branch-${node.from}-${node.samples[0].index}`,
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
  const svg = s("svg", { width, height: height + 16, class: "tree", role: "tree", "aria-label": "Where the answers part" },
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

/** The fold above the cards: the tree, and the sentence of the branch under the pointer. */
export function treePanel({ group, chosen, width, onPick }) {
  const forks = rows(prefixTree(group.samples)).filter(({ node }) => node.children.length + node.ended.length > 1).length;
  const rest = chosen ? "" : forks ? `${count(forks, "fork")}. Blue leads up, orange down. Tap a branch to lay its answers open.` : "Every answer is the same.";
  const said = h("p", { class: "note", role: "status" });
  const tell = (node) => (said.textContent = node ? sentence(node) : chosen ? sentence({ ...branchOf(group.samples, chosen) }) : rest);
  const picture = treePicture({ samples: group.samples, chosen, width, onPick, onRest: tell });
  tell(null);
  return h("div", { class: "treebox" }, picture, said);
}

// The node whose samples these are.
const branchOf = (samples, chosen) =>
  rows(prefixTree(samples)).map(({ node }) => node).find((node) => node.samples.length === chosen.size && node.samples.every((sample) => chosen.has(sample.index))) ?? prefixTree(samples.filter((sample) => chosen.has(sample.index)));
