// The keys of each view: a row below it, and a dialog with all of them.

import { h, show } from "../common/dom.js";

const KEYS = {
  ratings: [["1 … 9", "pick a sample"], ["g x", "good, bad"], ["r", "rank"], ["j k", "prompt"], ["space", "pause the view"]],
  live: [["j k", "group"], ["enter", "open group"], ["h l", "step"], ["space", "pause the view"], ["p", "prompt over time"], ["w", "what if"], ["y", "copy link"]],
  group: [["1 … 9", "pick a sample"], ["t", "next colour"], ["d", "compare two"], ["g x", "good, bad"], ["r", "rank"], ["f", "forks"], ["b", "branch"], ["h l", "step"], ["j k", "prompt"], ["p", "over time"], ["w", "what if"], ["esc", "back"], ["y", "copy link"]],
  search: [["/", "type a text"], ["j k", "hit"], ["enter", "open it"], ["n N", "next, previous hit in the group view"], ["esc", "back"], ["y", "copy link"]],
  try: [["ctrl enter", "ask"], ["esc", "back"], ["y", "copy link"]],
  prompt: [["j k", "prompt"], ["h l", "visit"], ["enter", "open group"], ["esc", "back"], ["y", "copy link"]],
};

const letter = (key) => key.split(/\s/)[0];

/** The row of keys below a view, with the last action at its right. `idle`: keys without a function on this page. */
export function makeKeyBar(idle = []) {
  const list = h("span", { class: "keylist" });
  const status = h("span", { class: "keystatus", role: "status" });
  const element = h("div", { class: "keys" }, list, h("span", { class: "sp" }), status);
  let timer = null;
  let drawn = "";
  const idleText = "Every underlined word has an explanation";
  return {
    element,
    update(view, hits = false) {
      if (drawn === `${view} ${hits}`) return;
      drawn = `${view} ${hits}`;
      show(list, [...(hits ? [["n N", "next, previous hit"]] : []), ...KEYS[view].filter(([key]) => !idle.includes(letter(key)))].map(([key, words]) => h("span", {}, h("kbd", {}, key), " ", words)));
      status.textContent ||= idleText;
    },
    say(words) {
      clearTimeout(timer);
      status.textContent = words;
      timer = setTimeout(() => (status.textContent = idleText), 3000);
    },
  };
}

const HELP = [
  ["j  k", "next, previous group"],
  ["h  l", "step back, step on; past the newest is live"],
  ["enter", "open the group"],
  ["esc", "back"],
  ["1 … 9", "pick a sample of the group"],
  ["d", "compare the picked sample with its nearest opposite"],
  ["f", "the group as a tree: where its samples diverge"],
  ["b", "continue from the chosen token: what was it worth?"],
  ["g  x", "rate the picked sample good, bad; again removes it"],
  ["r", "rank the group: then press numbers, best first; backspace removes one"],
  ["t", "next colouring of the tokens"],
  ["← →", "walk along the tokens of a card"],
  ["p", "this prompt over time"],
  ["a", "sample a prompt of your own, beside the base model"],
  ["w", "what if: every recorded step with other settings"],
  ["space", "pause the view: park at this step, or go live again"],
  ["y", "copy a link to exactly this"],
  ["?", "this sheet"],
];

/** The dialog with all keys, without those in `idle`. */
export function makeHelp(search, idle = []) {
  const work = HELP.filter(([key]) => !idle.includes(letter(key)));
  const rows = search ? [...work.slice(0, -1), ["/", "search the samples"], ["n  N", "next, previous hit of the search"], work.at(-1)] : work;
  const element = h("dialog", { class: "sheet", "aria-label": "Keys" },
    h("h2", {}, "Keys"),
    h("dl", {}, rows.map(([key, words]) => [h("dt", {}, key.split(/\s{2}/).map((one) => [h("kbd", {}, one), " "])), h("dd", {}, words)])),
    h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
  return { element, open: () => element.showModal(), get isOpen() { return element.open; } };
}
