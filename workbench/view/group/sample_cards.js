// Samples side by side: their tokens coloured by a lens, the shared prefix, and where they diverge. Only these few samples are drawn
// token by token.

import { h, oneLine, visible } from "../common/dom.js";
import { mark, rightWord } from "../common/dots.js";
import { capital, count, fixed, known, listed, percent, signed, word } from "../common/format.js";
import { ratingChip, ratingRow } from "../common/ratings.js";
import { commonPrefix, differing, twins } from "../common/siblings.js";
import { lensLegend, tokenText } from "./tokens.js";

const number = (sample) => `#${sample.index + 1}`;

const STYLES = { unfinished: "never ends", bare: "no tags", direct: "guesses at once", checked: "checks itself", jumps: "skips steps", worked: "works it out" };

/** A sample's kind in a word or two. */
function nature(sample, samples) {
  if (sample.reward === null) return "no score";
  if (sample.finish_reason === "length") return "cut off";
  if (sample.style) return STYLES[sample.style] ?? oneLine(sample.style, 22);
  const lengths = samples.map((one) => one.length).sort((a, b) => a - b);
  const median = lengths[lengths.length >> 1];
  return sample.length > 1.4 * median ? "long" : sample.length < 0.6 * median ? "short" : rightWord(sample);
}

/** A note about a failed reward, a truncated sample, or equal texts; else empty. */
function remark(sample, samples, limit) {
  const same = twins(sample, samples);
  const failed = Object.entries(sample.reasons ?? {});
  if (failed.length) return `${failed[0][0]} failed: ${visible(failed[0][1], 200)}`;
  if (sample.finish_reason === "length") return `Cut at ${count(sample.length, "token")}${limit ? ` (the limit is ${limit})` : ""}, so it could not end.`;
  if (same.length) {
    const few = same.length <= 4;
    return `${few ? listed(same.map(number)) : `${capital(word(same.length))} others`} ${same.length === 1 ? "has" : "have"} exactly this text, so it counts ${same.length === 1 ? "twice" : `${word(same.length + 1)} times`}.`;
  }
  return "";
}

function card(sample, { group, lens, cut, picked, tok, onPick, onToken, different, limit, folded, first }) {
  const up = (sample.advantage ?? 0) > 0;
  const share = group.gradient_share > 0 && known(sample.gradient_share) ? sample.gradient_share / group.gradient_share : null;
  const note = remark(sample, group.samples, limit);
  return h("article", { class: `card ${picked ? "picked" : ""}`, "data-card": sample.index, "aria-label": `Sample ${number(sample)}` },
    h("button", { type: "button", class: `hd ${known(sample.advantage) ? (up ? "up" : "down") : ""}`, "aria-pressed": String(picked), "data-key": `card-${sample.index}`, on: { click: () => onPick(sample.index) } },
      h("b", {}, number(sample)), mark(sample), h("b", {}, nature(sample, group.samples)), ratingChip(sample), h("span", { class: "sp" }), known(sample.advantage) && h("span", { class: `mono b ${up ? "pos" : "neg"}` }, signed(sample.advantage))),
    h("div", { class: "meta" }, h("span", {}, count(sample.length, "token")), h("span", {}, share === null ? "" : [percent(share), h("span", { class: "desk" }, " of the gradient")])),
    tokenText(sample, { lens, cut, different, picked: picked ? tok : null, onPick: (i) => onToken(sample.index, i), shared: !folded, first }),
    note && h("p", { class: "note" }, note));
}

/** The panel of cards. `shown`: the samples to show; `compare`: two of them as a diff. */
export function cardsPanel({ group, rater = null, shown, lens, cursor, onPick, onToken, compare, all, limit, tree, branch, onTree }) {
  const coloured = shown.every((sample) => sample.tokens);
  const cut = coloured && shown.length > 1 && !all ? commonPrefix(shown) : 0;
  const same = shown.length > 1 && shown.every((sample) => sample.text === shown[0].text);
  const title = branch ? `Branch of ${count(branch.size, "sample")}` : all ? `All ${group.samples.length} samples` : same ? "The same text, twice" : compare ? `${number(shown[0])} against ${number(shown[1])}`
    : cut > 0 ? `Same start, ${word(shown.length)} endings` : `${word(shown.length)} ${shown.length === 1 ? "sample" : "samples"}`.replace(/^./, (c) => c.toUpperCase());
  const pair = compare && shown.length === 2 && shown[0].tokens && shown[1].tokens;
  return [
    h("div", { class: "cardshead" }, h("b", { class: "nw" }, title), group.samples.length > 1 && h("button", { type: "button", class: `btn sm ${tree ? "on" : ""}`, "aria-pressed": String(Boolean(tree)), "data-key": "tree", on: { click: onTree } }, "Tree ", h("kbd", { class: "desk" }, "f")), pair && h("span", { class: "note desk" }, "underlined: only here"), h("span", { class: "sp" }), coloured ? lensLegend(lens) : h("span", { class: "note" }, "token arrays of this step were not kept")),
    rater?.ranking && ratingRow(rater, group, cursor.sample),
    tree,
    h("div", { class: `cards n${all ? "all" : shown.length}` }, shown.map((sample, i) => card(sample, {
      group, lens, cut: same ? 0 : cut, picked: sample.index === cursor.sample, tok: cursor.tok, onPick, onToken, limit,
      different: pair ? differing(sample, shown[1 - i]) : null, first: shown.length > 4 ? 128 : undefined,
    }))),
    group.samples.filter((sample) => !shown.includes(sample)).map((sample) => searchable(sample, onPick)),
    cut > 0 && !same && !all && splitRow(group, shown, cut),
    rater && !rater.ranking && ratingRow(rater, group, cursor.sample),
  ];
}

// A sample without a card, hidden: the browser's own search finds its text and then opens it.
const searchable = (sample, onPick) => h("div", { hidden: "until-found", class: "unread", on: { beforematch: () => setTimeout(() => onPick(sample.index)) } }, `${number(sample)} `, visible(sample.text));

// Where the shown samples diverge: each token chosen there with its probability before and after the step, and how its samples scored.
function splitRow(group, shown, cut) {
  const start = shown[0].tokens?.ids.slice(0, cut);
  if (!start) return null;
  const through = group.samples.filter((sample) => sample.tokens && sample.tokens.ids.length > cut && start.every((id, i) => sample.tokens.ids[i] === id));
  const choices = new Map();
  for (const sample of through) choices.set(sample.tokens.ids[cut], [...(choices.get(sample.tokens.ids[cut]) ?? []), sample]);
  const order = [...choices.values()].sort((a, b) => b.length - a.length).slice(0, 4);
  return h("div", { class: "splitrow" },
    h("div", { class: "splithead" }, h("h3", {}, `The split, token ${cut + 1}`), h("span", { class: "note" }, `${count(through.length, "sample")} share this prefix; what each choice led to`)),
    h("div", { class: "choices" }, order.map((samples) => choice(samples, cut))));
}

function choice(samples, cut) {
  const { tokens } = samples[0];
  const before = Math.exp((tokens.policy ?? tokens.sampler)[cut]);
  const after = tokens.after ? Math.exp(tokens.after[cut]) : null;
  const scored = samples.filter((sample) => known(sample.reward));
  const right = samples.filter((sample) => sample.right).length;
  const graded = samples.some((sample) => sample.right === null);
  const mean = scored.reduce((sum, sample) => sum + sample.reward, 0) / Math.max(1, scored.length);
  const text = tokens.text[cut].replace(/\n/g, "↵") || "end";
  return h("div", { class: "choice" },
    h("div", {}, h("span", { class: "tk split" }, oneLine(text, 18)), h("span", { class: "note nw" }, `p ${fixed(before)}`, after !== null && [" → ", h("b", {}, fixed(after))])),
    h("div", { class: "outcome" }, h("span", { class: "track" }, h("span", { class: "teal", style: { width: `${Math.max(0, Math.min(1, graded ? mean : right / samples.length)) * 100}%` } })),
      h("b", { class: "acc nw" }, graded ? `mean ${fixed(mean)}` : `${right} of ${samples.length} right`)));
}
