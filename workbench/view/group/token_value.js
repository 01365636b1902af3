// The value of a token: mean reward of continuations sampled just before it and just after each choice there, beside the one advantage
// that GRPO gives to every token. The run's model samples them on request; results are saved and shown again later.

import { h, oneLine, show } from "../common/dom.js";
import { count, fixed, known, percent, signed } from "../common/format.js";

const COUNTS = [16, 32, 64, 128];
const number = (sample) => `#${sample + 1}`;
const keyOf = (sample, tok) => `${sample}/${tok}`;

/** `ask` sends a probe, null where no server is reached; `go` moves the cursor. */
export function makeTokenValue({ store, ask, go }) {
  const element = h("section", { class: "tokenvalue", "aria-label": "Value of a token", hidden: true });
  let loadedGroup = null; // the group that `found` belongs to
  let found = new Map(); // results by sample and token
  let running = null; // {key, words, model} of the probe under way
  let failed = null; // {key, words}
  let n = COUNTS[0];
  let at = null; // {group, sample, tok}

  async function load(group) {
    loadedGroup = group;
    found = new Map();
    failed = null;
    const saved = await store.branches(group.step, group.k, group.mode).catch(() => null);
    if (loadedGroup !== group || !saved) return;
    for (const one of saved.branches) found.set(keyOf(one.sample, one.tok), one);
    draw();
  }

  async function start() {
    if (!ask || running || !at || at.tok === null) return;
    const { group, sample, tok } = at;
    const here = keyOf(sample, tok);
    running = { key: here, words: "Sending…", model: "" };
    failed = null;
    draw();
    try {
      const result = await ask("branch", { step: group.step, k: group.k, kind: group.kind, mode: group.mode, sample, tok, n }, (words, model) => {
        running = { key: here, words, model };
        draw();
      });
      if (loadedGroup === group) found.set(here, result);
    } catch (error) {
      failed = { key: here, words: error.status ? error.message : "No response from the server." };
    }
    running = null;
    draw();
  }

  const button = (words) => ask && h("span", { class: "askrow" },
    h("button", { type: "button", class: "btn sm", disabled: Boolean(running), "data-key": "branch-start", on: { click: start } }, words, h("kbd", { class: "desk" }, "b")),
    h("label", { class: "note" }, "with ", h("select", { "aria-label": "Continuations a side", "data-key": "branch-n", on: { change: (event) => (n = Number(event.target.value)) } }, COUNTS.map((one) => h("option", { value: one, selected: one === n }, one))), " continuations a side"));

  function draw() {
    if (!at) return;
    const { group, sample, tok } = at;
    const here = tok === null ? null : keyOf(sample, tok);
    const others = [...found.values()].filter((one) => keyOf(one.sample, one.tok) !== here);
    const result = found.get(here);
    const token = here && group.samples.find((one) => one.index === sample)?.tokens?.text[tok];
    element.hidden = !((ask && token !== undefined && token !== null) || result || others.length || running);
    if (element.hidden) return;
    const focus = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    show(element,
      result ? drawn(result, group) : token !== undefined && token !== null && ask
        ? h("div", { class: "splithead" }, h("h3", {}, "What was this token worth? "), h("span", { class: "tk split" }, oneLine(token.replace(/\n/g, "↵") || "end", 18)), h("span", { class: "note" }, `token ${tok + 1} of ${number(sample)}`))
        : null,
      running ? h("p", { class: "note", role: "status" }, running.key === here ? "" : `${running.key.split("/").map((one) => Number(one) + 1).join(", token ").replace(/^/, "#")}: `, running.words, running.model && ` Model: ${running.model}.`) : here && token !== undefined && button(result ? "Branch again " : "Branch from this token "),
      failed?.key === here && h("p", { class: "crit", role: "alert" }, failed.words),
      others.length > 0 && h("p", { class: "note" }, "Branched before: ", others.slice(0, 8).map((one, i) => [i ? ", " : "", h("button", { type: "button", class: "link", "data-key": `branched-${one.sample}-${one.tok}`, on: { click: () => go({ sample: one.sample, tok: one.tok }) } }, `${number(one.sample)} token ${one.tok + 1}`)])));
    if (focus) element.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  }

  return {
    element,
    start,
    /** Show a token of the group; `tok` is null where none is chosen. */
    update(group, sample, tok) {
      at = { group, sample, tok };
      if (loadedGroup !== group) load(group);
      draw();
    },
  };
}

function drawn(result, group) {
  const [before, own, ...others] = result.sides;
  const inPercent = [before, own, ...others].every((side) => side.right !== null && side.value >= 0 && side.value <= 1);
  const figure = (value) => (inPercent ? percent(value) : fixed(value));
  const low = Math.min(0, ...result.sides.map((side) => side.low));
  const high = Math.max(1e-9, inPercent ? 1 : 0, ...result.sides.map((side) => side.high));
  const x = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const side = (one, mine) => h("div", { class: "choice" },
    h("div", {}, h("span", { class: "tk split" }, oneLine((one.text || "end").replace(/\n/g, "↵"), 18)), h("span", { class: "note nw" }, mine ? number(result.sample) : "another sample’s choice")),
    h("div", { class: "outcome" },
      h("span", { class: "track worth" }, h("span", { class: "teal", style: { width: x(one.value) } }), h("i", { class: "margin", style: { left: x(one.low), width: `calc(${x(one.high)} - ${x(one.low)})` } }), h("i", { class: "tick", style: { left: x(before.value) } })),
      h("b", { class: "acc nw" }, `${figure(one.value)}${inPercent ? " right" : ""}`, h("span", { class: "note" }, one.n > 1 ? ` ${figure(one.low)} to ${figure(one.high)}` : " certain"))));
  return [
    h("div", { class: "splithead" }, h("h3", {}, `Token ${result.tok + 1} of ${number(result.sample)}: ${verdict(before, own, figure, inPercent)}`)),
    h("div", { class: "choices" }, [own, ...others].map((one, i) => side(one, i === 0))),
    h("p", { class: "note" }, `${count(result.n, "continuation")} a side; the tick is ${figure(before.value)} (${figure(before.low)} to ${figure(before.high)}), the value just before the choice; thin lines are 95 % intervals. `, besideAdvantage(result, before, own, group), policyWords(result)),
  ];
}

// Half-width of the 95 % interval of the difference of two means.
const margin = (before, own) => Math.hypot((before.high - before.low) / 2, (own.high - own.low) / 2);

function verdict(before, own, figure, inPercent) {
  const gain = own.value - before.value;
  const words = inPercent ? `${Math.round(Math.abs(gain) * 100)} points` : fixed(Math.abs(gain));
  if (Math.abs(gain) <= margin(before, own)) return `no more than chance (${figure(before.value)} → ${figure(own.value)})`;
  return `it ${gain > 0 ? "gained" : "lost"} ${words} (${figure(before.value)} → ${figure(own.value)})`;
}

/** The token's value in units of σ, beside the advantage of the whole sample. */
function besideAdvantage({ advantage, reward_std: sigma }, before, own) {
  if (!known(advantage) || !known(sigma) || sigma <= 0) return "";
  return `In units of this group’s σ the choice was worth ${signed((own.value - before.value) / sigma)} ± ${fixed(margin(before, own) / sigma)}; GRPO gave it, like every token of the sample, A = ${signed(advantage)}. `;
}

const policyWords = ({ policy_step: at, step }) => (known(at) ? `Continued by ${at === 0 ? "the base model" : `the policy after ${count(at, "step")}`}; the sample is from step ${step}. ` : "");
