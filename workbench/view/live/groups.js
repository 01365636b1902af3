// A step's groups: one row a prompt, one dot a sample, sorted by share of the gradient; dead groups folded into one line.

import { h, oneLine, part } from "../common/dom.js";
import { dotRow, mark, shareBar } from "../common/dots.js";
import { capital, count, fixed, percent, signed, word } from "../common/format.js";
import { term } from "../common/tooltip.js";

const NAMED = 3;

/** Whether rewards are graded: more than two values, or correctness not scored. */
export const isGraded = (groups) =>
  groups.some((group) => group.samples.some((sample) => sample.reward !== null && (sample.right === null || sample.right === undefined))) ||
  new Set(groups.flatMap((group) => group.samples.map((sample) => sample.reward)).filter((reward) => reward !== null)).size > 2;

/** The lowest and the highest advantage of a group. */
const ends = (group) => {
  const all = group.samples.map((sample) => sample.advantage).filter((a) => a !== null);
  return [Math.min(...all), Math.max(...all)];
};

/** Length of the prefix of whole words that all questions share: on a phone "Chain: " fills the column and identifies no prompt. */
function sharedPrefixLength(groups) {
  const [first, ...rest] = groups.map((group) => group.question);
  if (!rest.length) return 0;
  let length = 0;
  while (length < first.length && rest.every((other) => other[length] === first[length])) length++;
  return first.slice(0, length).search(/\S*$/);
}

/** The panel. `onOpen(group, sampleIndex|null)` opens the Group view, `link(group)` is its address. */
export function makeGroups({ onOpen, link }) {
  const element = h("section", { class: "panel groups", "aria-label": "Groups of this step" });
  let rows = [];

  const draw = part(element, (step, groups, range, narrow, unfolded) => {
    const graded = isGraded(groups);
    const alive = groups.filter((group) => !group.dead);
    const dead = groups.filter((group) => group.dead);
    const largest = Math.max(0, ...alive.map((group) => group.gradient_share ?? 0));
    rows = alive;
    const row = (group) => groupRow(group, { graded, range: graded ? range : null, narrow, prefix: sharedPrefixLength(groups), largest, onOpen, link });
    return [
      h("div", { class: "ph" },
        h("h2", {}, `Step ${step}: where the gradient comes from`),
        h("span", { class: "note desk" }, "one row per prompt, one dot per sample; ", graded ? "at its reward, " : [mark({ right: true }, 11), " right ", mark({ right: false }, 11), " wrong, "], "size = length"),
        h("span", { class: "sp" }),
        h("span", { class: "note desk" }, "sorted by share of the gradient")),
      alive.length > 0 && h("table", {},
        !narrow && h("thead", {}, h("tr", {},
          h("th", { scope: "col" }, "Prompt = reference answer"),
          h("th", { scope: "col" }, graded ? `Samples, reward ${fixed(range[0], 0)} to ${fixed(range[1], 0)}` : "Samples, wrong to right"),
          h("th", { class: "r", scope: "col" }, graded ? "Mean" : "Right"),
          h("th", { class: "r", scope: "col" }, term("reward_std", "σ of reward")),
          h("th", { class: "r", scope: "col" }, term("advantage", graded ? "Lowest A" : "A if wrong")),
          h("th", { class: "r", scope: "col" }, term("advantage", graded ? "Highest A" : "A if right")),
          h("th", { class: "barcol", scope: "col" }, term("gradient_share", "Share of gradient")),
          h("th", { scope: "col" }, h("span", { class: "unseen" }, "percent")))),
        h("tbody", {}, alive.map(row), unfolded && dead.map(row))),
      dead.length > 0 && deadLine(dead, unfolded, narrow, { onOpen, link }),
    ];
  });

  let folded = true;
  let last = null;
  const again = () => {
    draw.update(...last, !folded);
    choose(element.dataset.chosen || null);
  };
  element.addEventListener("toggle-dead", () => {
    folded = !folded;
    again();
  });

  function choose(id) {
    element.dataset.chosen = id ?? "";
    for (const tr of element.querySelectorAll("tr[data-prompt]")) tr.classList.toggle("sel", tr.dataset.prompt === id);
  }

  return {
    element,
    /** `stepGroups`: the response of the step route; `chosen`: the prompt of the cursor, null for the first row. */
    update(stepGroups, { range, chosen, narrow }) {
      last = [stepGroups.step, stepGroups.groups, range, narrow];
      draw.update(...last, !folded);
      choose(chosen ?? rows[0]?.prompt_id ?? null);
    },
  };
}

function groupRow(group, { graded, range, narrow, prefix, largest, onOpen, link }) {
  const [low, high] = ends(group);
  const right = group.samples.filter((sample) => sample.right).length;
  const open = (event) => {
    event.preventDefault();
    const sample = event.target.closest?.("[data-sample]")?.dataset.sample;
    onOpen(group, sample === undefined ? null : Number(sample));
  };
  return h("tr", { "data-prompt": group.prompt_id, class: group.dead ? "isdead" : "", on: { click: open } },
    h("td", { class: "prompt mono" },
      h("a", { href: link(group), "data-key": `group-${group.prompt_id}`, "aria-label": `Open the group of ${oneLine(group.question, 60)}` }, narrow ? oneLine(group.question.slice(prefix), 60) : oneLine(group.question, 90)),
      !narrow && group.answer !== null && h("span", { class: "i3" }, ` = ${oneLine(group.answer, 24)}`)),
    h("td", { class: "dotcell" }, dotRow(group.samples, { width: narrow ? 150 : 210, dead: group.dead, range })),
    !narrow && [
      h("td", { class: "r" }, graded ? fixed(group.reward_mean) : `${right} of ${group.n}`),
      h("td", { class: "r mono" }, fixed(group.reward_std)),
      h("td", { class: `r mono ${group.dead ? "i3" : "neg"}` }, signed(low)),
      h("td", { class: `r mono ${group.dead ? "i3" : "pos"}` }, signed(high)),
      h("td", { class: "barcol" }, shareBar(group.gradient_share ?? 0, largest)),
    ],
    h("td", { class: "r b sharecol" }, group.dead ? "0 %" : percent(group.gradient_share)));
}

const WHY = { right: (n) => `all ${n} right, σ = 0, A = 0, no gradient:`, wrong: (n) => `all ${n} wrong, σ = 0, A = 0, no gradient:`, tied: () => "every sample scored the same, σ = 0, A = 0, no gradient:" };

function deadLine(dead, unfolded, narrow, { onOpen, link }) {
  const kinds = Object.groupBy(dead, (group) => group.dead);
  const toggle = (event) => event.currentTarget.dispatchEvent(new CustomEvent("toggle-dead", { bubbles: true }));
  return h("div", { class: "deadline" },
    h("button", { type: "button", class: "link quiet b", "aria-expanded": String(Boolean(unfolded)), "data-key": "dead", on: { click: toggle } }, h("span", { class: "q", "data-tip": "frac_reward_zero_std" }, count(dead.length, "dead group"))),
    Object.entries(kinds).map(([kind, groups]) => h("span", { class: "deadkind" },
      h("span", {}, `${Object.keys(kinds).length > 1 ? `${capital(word(groups.length))}: ` : ""}${WHY[kind](groups[0].n)}`),
      groups.slice(0, narrow ? 1 : NAMED).map((group) => h("a", { class: "mono", href: link(group), on: { click: (event) => (event.preventDefault(), onOpen(group, null)) } }, oneLine(group.question, 32))),
      groups.length > (narrow ? 1 : NAMED) && h("span", {}, `and ${groups.length - (narrow ? 1 : NAMED)} more`))));
}
