// Does the reward prefer right samples, and does it agree with the user's ratings?

import { h, part, s } from "../common/dom.js";
import { count, fixed, signed } from "../common/format.js";

/** `onGroup(k)`: show that group. */
export function makePrefer({ onGroup }) {
  const element = h("section", { class: "panel lab-prefer", "aria-label": "Right samples and your ratings" });
  let unfolded = false;
  let last = null;

  const draw = part(element, (prefer, thumbs, label, oldLabel, open) => [
    h("div", { class: "ph" }, h("h2", {}, "Does it still prefer right samples?")),
    prefer ? ofRight(prefer, label, oldLabel) : h("p", { class: "note lab-wait" }, thumbs ? "It is not known which of these samples are right." : "Run the reward: what right and what wrong samples earn."),
    h("div", { class: "lab-thumbs" }, h("h3", {}, "And your thumbs?"), thumbs ? ofThumbs(thumbs, open) : h("p", {}, "Your ratings of samples are compared with the reward.")),
  ]);

  function ofThumbs({ rated, agree, silent, against }, open) {
    if (!rated) return h("p", {}, "None of these samples is rated. In a group, g calls a sample good and x bad.");
    return [
      h("p", {}, h("b", {}, `Agrees with ${agree} of ${count(rated, "rating")}`), silent ? `, gives ${silent} an advantage of 0` : "", ". ",
        against.length > 0 && h("button", { type: "button", class: "link", "aria-expanded": String(open), "data-key": "against", on: { click: () => ((unfolded = !unfolded), again()) } }, open ? "Fold" : against.length === 1 ? "Show the other" : `Show the ${against.length}`)),
      open && h("ul", {}, against.map((one) => h("li", {}, h("button", { type: "button", class: "link quiet", "data-key": `against-${one.k}-${one.index}`, on: { click: () => onGroup(one.k) } },
        `#${one.index + 1} of group ${one.k + 1}: you said ${one.good ? "good" : "bad"}, A ${signed(one.advantage)}`)))),
    ];
  }

  function again() {
    const { result, label, oldLabel } = last;
    draw.update(result?.prefer ?? null, result?.thumbs ?? null, label, oldLabel, unfolded);
  }

  return {
    element,
    update(state) {
      last = state;
      again();
    },
  };
}

function ofRight(prefer, label, oldLabel) {
  const sides = [prefer.old && [oldLabel, prefer.old], [label, prefer.new]].filter(Boolean);
  const values = sides.flatMap(([, side]) => [side.right, side.wrong]).filter((v) => v !== null);
  const top = Math.max(0.001, ...values);
  const low = Math.min(0, ...values);
  const height = 104;
  const y = (v) => 14 + (1 - (v - low) / (top - low)) * (height - 14);
  const svg = s("svg", { width: 300, height: height + 24, role: "img", "aria-label": sides.map(([name, side]) => `${name}: right ${fixed(side.right)}, wrong ${fixed(side.wrong)}`).join("; ") });
  const bar = (x, value, look) => value !== null && svg.append(
    s("rect", { x, y: Math.min(y(value), y(0)), width: 34, height: Math.max(1.5, Math.abs(y(value) - y(0))), class: look }),
    s("text", { x: x + 17, y: Math.min(y(value), y(0)) - 4, "text-anchor": "middle", class: "m t1" }, fixed(value)));
  sides.forEach(([name, side], i) => {
    const x = 14 + i * 140;
    bar(x, side.right, "rightbar");
    bar(x + 44, side.wrong, "wrongbar");
    svg.append(
      s("text", { x: x + 17, y: height + 12, "text-anchor": "middle" }, "right"), s("text", { x: x + 61, y: height + 12, "text-anchor": "middle" }, "wrong"),
      s("text", { x: x + 84, y: height - 2, class: "t2" }, name.length > 8 ? `${name.slice(0, 7)}…` : name));
  });
  svg.append(s("line", { x1: 0, x2: 296, y1: y(0), y2: y(0), class: "hair" }));
  return [
    h("p", { class: "note sub" }, `Mean reward over ${prefer.right} right and ${prefer.wrong} wrong samples`),
    h("div", { class: "lab-plot" }, svg),
    h("p", { class: "lab-answer" }, conclusion(prefer)),
  ];
}

function conclusion({ new: now, old, right }) {
  if (!right) return "None of these samples is right, so this cannot be decided.";
  const lead = (now.right ?? 0) - (now.wrong ?? 0);
  if (lead <= 0) return "No. Wrong samples earn as much as right ones, or more.";
  const was = old && old.right_down !== now.right_down ? ` (${old.right_down} before)` : "";
  const down = now.right_down ? `${count(now.right_down, "right sample gets", "right samples get")} a negative advantage${was}.` : `No right sample gets a negative advantage${was}.`;
  if (!old) return `Yes. ${down}`;
  const before = (old.right ?? 0) - (old.wrong ?? 0);
  return `Yes. ${down} The lead of right over wrong goes from ${fixed(before)} to ${fixed(lead)}.`;
}
