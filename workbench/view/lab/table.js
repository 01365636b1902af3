// One group under both rewards: dots on one reward axis, then a row per sample with its values, both advantages and its rank.

import { h, oneLine, part, s, visible } from "../common/dom.js";
import { dotRow, mark } from "../common/dots.js";
import { fixed, NONE, plain, signed } from "../common/format.js";

const MAX_PARTS = 4;

/** `onStep(by)`: another group; `onLine(n)`: to a line of the code; `onCase(group, sample)`: save as a test case. */
export function makeTable({ onStep, onLine, onCase }) {
  const element = h("div", { class: "lab-result" });
  const open = new Set();
  let last = null;

  const draw = part(element, (state) => {
    const { group, range, label, oldLabel, groups, parts, narrow, opened } = state;
    if (!group) return h("p", { class: "missing" }, state.empty);
    const scored = group.samples.some((sample) => sample.reward !== null || Object.keys(sample.reasons).length);
    const names = parts.map(({ name }) => name).filter((name) => group.samples.some((sample) => name in sample.parts));
    const shown = narrow ? [] : names.slice(0, MAX_PARTS);
    const reasons = firstOfEach(group.samples);
    const rows = [...group.samples].sort((a, b) => value(b, scored) - value(a, scored) || value(b, false) - value(a, false) || a.index - b.index);
    const head = { firstReasons: reasons, names: shown, more: names.length - shown.length, scored, label, oldLabel, narrow, old: Boolean(oldLabel) };
    return [
      h("div", { class: "lab-group" },
        h("span", { class: "step" },
          h("button", { type: "button", "aria-label": "Previous group", disabled: group.k === 0, "data-key": "prev", on: { click: () => onStep(-1) } }, "‹"),
          h("span", {}, "group ", h("b", {}, group.k + 1), ` of ${groups}`),
          h("button", { type: "button", "aria-label": "Next group", disabled: group.k + 1 >= groups, "data-key": "next", on: { click: () => onStep(1) } }, "›")),
        h("span", { class: "mono b clip question" }, oneLine(group.question, narrow ? 40 : 90), group.answer !== null && h("span", { class: "i3" }, ` = ${oneLine(group.answer, 30)}`)),
        group.step !== null && h("span", { class: "i3 nw" }, `step ${group.step}`)),
      dots(group, { range, label, oldLabel, scored, narrow }),
      h("table", {}, heads(head), h("tbody", {}, rows.map((sample) => row(sample, group, { ...head, opened, onLine, onCase, toggle })))),
    ];
  });

  function toggle(index) {
    const key = `${last.group.k}/${index}`;
    open.has(key) ? open.delete(key) : open.add(key);
    again();
  }

  function again() {
    draw.update({ ...last, opened: last.group ? last.group.samples.map(({ index }) => index).filter((index) => open.has(`${last.group.k}/${index}`)) : [] });
  }

  return {
    element,
    update(state) {
      last = state;
      again();
    },
    forget: () => open.clear(),
  };
}

const value = (sample, scored) => (scored ? sample.reward : sample.old.reward) ?? -Infinity;

/** Old above new, every sample at its reward. */
function dots(group, { range, label, oldLabel, scored, narrow }) {
  const width = narrow ? 200 : 420;
  const line = (words, samples, std, dead) => h("div", { class: "lab-dots" },
    h("span", { class: "i2 clip" }, words), dotRow(samples, { width, range, dead: dead ? "dead" : "" }),
    h("span", { class: "mono i3" }, dead ? "σ 0: no signal" : `σ ${fixed(std)}`));
  const old = group.samples.map((sample) => ({ ...sample, reward: sample.old.reward, advantage: sample.old.advantage }));
  return h("div", { class: "lab-axis" },
    oldLabel && group.std.old !== null && line(oldLabel, old, group.std.old, group.dead.old),
    scored && line(h("b", {}, label), group.samples, group.std.new, group.dead.new),
    h("div", { class: "lab-dots lab" }, h("span", {}), h("span", { class: "lab-ends", style: { width: `${width}px` } }, h("span", {}, plain(range[0])), h("span", {}, plain(range[1]))), h("span", {})));
}

function heads({ names, more, scored, label, oldLabel, narrow, old }) {
  return h("thead", {}, h("tr", {},
    h("th", { scope: "col" }), h("th", { scope: "col", class: "say" }, "Sample"),
    names.map((name) => h("th", { class: "r clip partcol", scope: "col", title: name }, name)),
    more > 0 && !narrow && h("th", { scope: "col" }, `+${more}`),
    old && !narrow && h("th", { class: "r", scope: "col" }, `r, ${oldLabel}`),
    scored && h("th", { class: "r", scope: "col" }, `r, ${label}`),
    old && !narrow && h("th", { class: "r", scope: "col" }, `A, ${oldLabel}`),
    scored && [
      old && !narrow && h("th", { scope: "col" }, h("span", { class: "unseen" }, "to")),
      h("th", { class: "r", scope: "col" }, `A, ${label}`),
      old && h("th", { class: "r place", scope: "col" }, "Rank"),
      old && !narrow && h("th", { scope: "col" }, "○ to ●"),
    ],
    h("th", { scope: "col" }, h("span", { class: "unseen" }, "Keep"))));
}

/** The first sample with each failure reason, with their number, so that a failure of all samples is shown once: "index/name" to count. */
function firstOfEach(samples) {
  const seen = new Map();
  for (const { index, reasons } of samples)
    for (const [name, { text, line, chosen }] of Object.entries(reasons)) {
      const key = `${name}/${line ?? text}`;
      if (chosen) continue;
      if (!seen.has(key)) seen.set(key, { first: `${index}/${name}`, count: 0 });
      seen.get(key).count += 1;
    }
  return new Map([...seen.values()].map(({ first, count }) => [first, count]));
}

function row(sample, group, { firstReasons, names, more, scored, old, narrow, opened, onLine, onCase, toggle }) {
  const isOpen = opened.includes(sample.index);
  const failed = Object.entries(sample.reasons).filter(([, reason]) => !reason.chosen);
  const cells = [
    h("td", { class: "mono i3" }, `#${sample.index + 1}`),
    h("td", { class: "say" }, h("button", { type: "button", class: "link quiet clip mono", "aria-expanded": String(isOpen), "data-key": `sample-${sample.index}`, on: { click: () => toggle(sample.index) } },
      sample.right !== null && mark(sample, 10), " ", oneLine(sample.text, 90) || h("span", { class: "i3" }, "(nothing)"))),
    names.map((name) => h("td", { class: "r mono" }, partValue(sample, name))),
    more > 0 && !narrow && h("td", {}),
    old && !narrow && h("td", { class: "r mono i2" }, fixed(sample.old.reward)),
    scored && h("td", { class: "r mono b" }, sample.reward === null ? (failed.length ? h("span", { class: "crit" }, "error") : NONE) : fixed(sample.reward)),
    old && !narrow && h("td", { class: "r mono" }, advantage(sample.old.advantage, sample.old.reward)),
    scored && [
      old && !narrow && h("td", { class: "i3" }, "→"),
      h("td", { class: "r mono b" }, advantage(sample.advantage, sample.reward)),
      old && h("td", { class: "r nw place" }, moved(sample)),
      old && !narrow && h("td", { class: "movecell" }, shift(sample)),
    ],
    h("td", { class: "r" }, h("button", { type: "button", class: "link quiet i3 keepcase", title: "Add to my cases", "aria-label": `Add sample ${sample.index + 1} to my cases`, "data-key": `case-${sample.index}`, on: { click: () => onCase(group, sample) } }, "+")),
  ];
  const width = 5 + names.length + (more > 0 ? 1 : 0) + (old ? 6 : 0);
  return [
    h("tr", { class: isOpen ? "on" : "", "data-sample": sample.index }, cells),
    isOpen && h("tr", { class: "whole" }, h("td", {}), h("td", { colspan: width }, h("pre", {}, visible(sample.text), sample.cut ? `… (${sample.cut.toLocaleString("en")} more characters)` : ""))),
    Object.entries(sample.reasons).filter(([name]) => firstReasons.has(`${sample.index}/${name}`) || isOpen).map(([name, { text, line }]) => h("tr", { class: "reason" }, h("td", {}),
      h("td", { colspan: width }, h("b", {}, `${oneLine(name, 40)}: `), h("span", {}, visible(text, 600)), (firstReasons.get(`${sample.index}/${name}`) ?? 1) > 1 && h("span", { class: "i3" }, ` The same for ${firstReasons.get(`${sample.index}/${name}`)} samples of this group.`), line && [" ", h("button", { type: "button", class: "link", "data-key": `line-${sample.index}-${name}`, on: { click: () => onLine(line) } }, `Go to line ${line}`)]))),
  ];
}

function partValue(sample, name) {
  const found = sample.parts[name];
  if (found !== null && found !== undefined) return fixed(found);
  return sample.reasons[name] && !sample.reasons[name].chosen ? h("span", { class: "crit" }, "error") : h("span", { class: "i3", title: sample.reasons[name]?.text ?? "" }, NONE);
}

const advantage = (a, reward) => (reward === null || a === null ? h("span", { class: "i3" }, NONE) : h("span", { class: a > 0 ? "pos" : a < 0 ? "neg" : "i3" }, signed(a)));

function moved({ place, old_place: before }) {
  if (place === null || before === null) return h("span", { class: "i3" }, NONE);
  if (place === before) return h("span", { class: "i3" }, `${place} =`);
  return [h("span", { class: "b" }, place), h("span", { class: place < before ? "pos" : "neg" }, place < before ? ` ▲${before - place}` : ` ▼${place - before}`)];
}

/** Both advantages on one axis from -2.5 to 2.5, zero in the middle. */
function shift(sample) {
  const x = (a) => 45 + Math.max(-2.4, Math.min(2.4, a)) * 17;
  const was = sample.old.reward === null ? null : sample.old.advantage;
  const is = sample.reward === null ? null : sample.advantage;
  return s("svg", { width: 90, height: 14, "aria-hidden": "true" },
    s("line", { x1: 45, x2: 45, y1: 0, y2: 14, class: "hair" }),
    was !== null && is !== null && s("line", { x1: x(was), x2: x(is), y1: 7, y2: 7, class: "moveline" }),
    was !== null && s("circle", { cx: x(was), cy: 7, r: 3, class: "wasdot" }),
    is !== null && s("circle", { cx: x(is), cy: 7, r: 3.8, class: is > 0 ? "upfill" : is < 0 ? "downfill" : "zerofill" }));
}
