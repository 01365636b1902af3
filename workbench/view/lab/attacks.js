// Attacks on the reward, the worst first, with verdicts in words.

import { h, oneLine, part, visible } from "../common/dom.js";
import { fixed } from "../common/format.js";
import { VERDICTS } from "./headline.js";

/** `onAttack()`, `onLine(n)`, `onCase(completion)`. */
export function makeAttacks({ onAttack, onLine, onCase }) {
  const element = h("section", { class: "panel lab-attacks", "aria-label": "Attacks" });
  let opened = null;
  let last = null;

  const draw = part(element, (attack, label, busy, open) => {
    const button = h("button", { type: "button", class: "btn sm", disabled: busy, "data-key": "attack", on: { click: onAttack } }, busy ? "Attacking…" : attack ? "Attack again" : "Attack it");
    if (!attack) {
      return [
        h("div", { class: "ph" }, h("h2", {}, "Attacks"), h("span", { class: "sp" }), button),
        h("p", { class: "note lab-wait" }, "An empty sample, the prompt echoed, answers spammed, the format alone, ten times the length, instructions to the judge: what each would earn."),
      ];
    }
    const broken = attack.tricks.filter(({ verdict }) => verdict === "breaks").length;
    const chip = attack.through ? h("span", { class: "chip warn" }, `${attack.through} ${attack.through === 1 ? "gets" : "get"} through`)
      : broken ? h("span", { class: "chip warn" }, `breaks on ${broken}`) : h("span", { class: "chip" }, "none gets through");
    return [
      h("div", { class: "ph" }, h("h2", {}, "Attacks"), chip, h("span", { class: "sp" }),
        h("span", { class: "lab" }, attack.against === null ? `score in ${label}` : `score in v${attack.against} → ${label}`), button),
      h("div", { class: "lab-tricks" }, h("table", {}, h("tbody", {}, attack.tricks.map((trick) => rowOf(trick, open === trick.name, attack.against !== null))))),
    ];
  });

  function rowOf(trick, isOpen, compared) {
    const bad = trick.verdict === "hackable" || trick.verdict === "breaks";
    return [
      h("tr", { class: bad ? "bad" : "", "data-trick": trick.name, "data-verdict": trick.verdict },
        h("td", {}, h("button", { type: "button", class: `link quiet ${bad ? "b" : ""}`, "aria-expanded": String(isOpen), "data-key": `trick-${trick.name}`, on: { click: () => ((opened = isOpen ? null : trick.name), again()) } }, NAMES[trick.name] ?? trick.name)),
        h("td", { class: "mono i3 clip trickcell" }, oneLine(trick.completion, 40) || "(nothing)"),
        h("td", { class: `nw ${trick.verdict === "hackable" || trick.verdict === "breaks" ? "crit b" : "i2"}` }, VERDICTS[trick.verdict]),
        h("td", { class: "r mono nw" }, compared && h("span", { class: "i2" }, `${fixed(trick.old)} → `), h("b", {}, trick.verdict === "breaks" && trick.score === null ? "error" : fixed(trick.score)))),
      isOpen && h("tr", { class: "whole" }, h("td", { colspan: 4 },
        h("p", {}, visible(trick.about, 700), trick.line && [" ", h("button", { type: "button", class: "link", "data-key": "trickline", on: { click: () => onLine(trick.line) } }, `Go to line ${trick.line}`)]),
        h("pre", {}, visible(trick.completion) || "(nothing)"),
        h("button", { type: "button", class: "link", "data-key": "trickcase", on: { click: () => onCase(trick.completion) } }, "Add to my cases"))),
    ];
  }

  function again() {
    draw.update(last.attack, last.label, last.busy, opened);
  }

  return {
    element,
    update(state) {
      last = state;
      again();
    },
  };
}

const NAMES = {
  empty: "Empty sample", "prompt echo": "Prompt repeated", "format only": "Format, no content", "constant guess": "Same guess always", "answer spam": "Every answer in one tag",
  "tag spam": "Every answer, a tag each", "10x length": "Ten times longer", "repeated answer": "Answer repeated", "wrong type": "Words for other types", "not a number": "NaN as answer",
  unicode: "Unicode look-alikes", "instructions to the judge": "Instructions to the judge", "signs only": "Signs without content",
};

