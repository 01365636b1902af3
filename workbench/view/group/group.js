// The Group view: one prompt at one step. Rewards, advantages, tokens, and what the update did.

import { advantageFormula, advantagesBy, sigmaOf, usedScaling } from "./advantage_formula.js";
import { cardsPanel } from "./sample_cards.js";
import { LENSES as LENS_ORDER } from "../common/cursor.js";
import { makeTokenValue } from "./token_value.js";
import { h, keepingFocus, oneLine, part, show, visible } from "../common/dom.js";
import { known } from "../common/format.js";
import { order, partsPanel, samplesTable, scatter, scatterSentence, sharePanel } from "./update_effect.js";
import { advantagePicture } from "./advantage_picture.js";
import { chooseCards, nearestOpposite, sharedPrefix } from "../common/siblings.js";
import { available, LENSES } from "./tokens.js";
import { treePanel } from "./prefix_tree.js";
import { openRewardCode } from "./reward_code.js";
import { takeLatest } from "../common/latest.js";

const isNarrow = () => matchMedia("(max-width: 600px)").matches;

/** ‹ Step 12 ›: words between two buttons. */
function stepper(words, back, on, { first, last, name }) {
  return h("span", { class: "step", role: "group", "aria-label": name },
    h("button", { type: "button", "aria-label": `${name} back`, disabled: first, "data-key": `${name}-back`, on: { click: back } }, "‹"),
    h("b", {}, words),
    h("button", { type: "button", "aria-label": `${name} on`, disabled: last, "data-key": `${name}-on`, on: { click: on } }, "›"));
}

/** `go(change)` moves the cursor; `turn(by)` goes to another step, `walk(by)` to another group of this one; `scalings`: see the glossary. */
export function makeGroup({ store, header, scalings, rater, go, turn, walk, whatIf, toggleWhatIf, ask = null }) {
  const head = h("div", { class: "head" });
  const art = h("div", { class: "art" });
  const strip = h("div", { class: "arith" });
  const hero = h("section", { class: "panel hero", "aria-label": "From reward to advantage" }, art, strip);
  const table = h("section", { class: "panel sib", "aria-label": "Table of this group’s samples" });
  const cards = h("div", { class: "cardsbody" });
  const tokenValue = makeTokenValue({ store, ask, go });
  const samples = h("section", { class: "panel cardspanel", "aria-label": "Samples" }, cards, tokenValue.element);
  const effect = h("section", { class: "panel sec" });
  const share = h("section", { class: "panel sec" });
  const parts = h("section", { class: "panel sec" });
  const rail = h("div", { class: "rail" }, effect, share, parts);
  const missing = h("p", { class: "missing", role: "status", hidden: true });
  const main = h("div", { class: "lens" }, table, samples, rail);
  const slot = h("div", { class: "slot" });
  const element = h("div", { class: "view viewgroup" }, head, missing, slot, hero, main);
  const follow = takeLatest(element);

  const widths = new Map(); // last known widths of the elements whose drawing depends on them
  hero.hidden = main.hidden = true; // until there is something to show
  let shown = null; // {group, list, cursor}
  let rank = 0;
  let choice = null;
  let compare = false;
  let all = false;
  let forks = false; // whether the tree is shown
  let branch = null; // the indices of the samples of a chosen branch

  const headPart = part(head, (step, newest, place, total, question, answer, note, lens, lenses, mode) => [
    stepper(mode ? `Evaluation at ${step}` : `Step ${step}`, () => turn(-1), () => turn(1), { first: step <= 0, last: step >= newest, name: "Step" }),
    stepper(`Group ${place} of ${total}`, () => walk(-1), () => walk(1), { first: place <= 1, last: place >= total, name: "Group" }),
    h("h1", { dir: "auto", title: question.length > 60 ? visible(question, 2000) : null }, visible(question, 300)),
    h("span", { class: "reference i2" }, answer !== null && ["reference answer ", h("b", { class: "mono" }, oneLine(answer, 80))], note && h("span", { class: "i3 desk" }, `  ${note}`)),
    h("span", { class: "sp" }),
    h("span", { class: "lensbar" }, lenses.some(([, there]) => there) && [h("span", { class: "note desk", id: "lensby" }, "Colour tokens by"), h("span", { class: "seg lenses", role: "group", "aria-labelledby": "lensby" }, lenses.map(([name, there]) =>
      h("button", { type: "button", class: name === lens ? "on" : "", "aria-pressed": String(name === lens), disabled: !there, title: there ? null : "Not recorded in this step", "data-key": `lens-${name}`, on: { click: () => go({ lens: name }) } }, LENSES[name].label)))],
      toggleWhatIf && h("button", { type: "button", class: "btn desk", "data-key": "whatif", on: { click: toggleWhatIf } }, "What if… ", h("kbd", {}, "w")),
      h("button", { type: "button", class: "btn desk", "data-key": "overtime", on: { click: () => go({ view: "prompt" }) } }, "Over time ", h("kbd", {}, "p"))),
  ]);

  const pick = (sample) => {
    if (rater.ranking) return rater.place(shown.group, sample);
    all = false;
    branch = null;
    go({ sample, tok: null });
  };
  const token = (sample, tok) => go({ sample, tok });
  const pickedOf = ({ group, cursor }) => group.samples.find((sample) => sample.index === cursor.sample)?.index ?? chooseCards(group.samples, null, 1)[0]?.index ?? 0;

  /** Show the samples of a branch as cards; the same branch again closes them. */
  function pickBranch(node) {
    const indices = new Set(node.samples.map((sample) => sample.index));
    const again = branch && branch.size === indices.size && [...indices].every((index) => branch.has(index));
    all = false;
    branch = again || indices.size === shown.group.samples.length ? null : indices;
    const first = order(node.samples)[0].index;
    const before = shown.cursor;
    go({ sample: first, tok: node.samples[0].tokens ? node.from : null });
    if (shown.cursor === before) keepingFocus(element, paint); // the cursor did not move, so nothing redraws
  }

  function toggleTree() {
    forks = !forks;
    if (!forks) branch = null;
    if (shown) keepingFocus(element, paint);
  }

  function paint() {
    const { group, list, cursor } = shown;
    const narrow = isNarrow();
    const picked = pickedOf(shown);
    const graded = new Set(group.samples.map((sample) => sample.reward).filter(known)).size > 2 || group.samples.some((sample) => sample.right === null);
    const tokens = group.samples.find((sample) => sample.tokens)?.tokens;
    const place = list.findIndex((one) => one.k === group.k) + 1;
    headPart.update(group.step, store.newest ?? group.step, place, list.length, group.question, group.answer, instruction(group), cursor.lens, LENS_ORDER.map((name) => [name, available(name, tokens)]), group.mode);
    hero.hidden = false;
    drawHero(picked, graded, narrow);
    const first = group.samples.find((sample) => sample.index === picked);
    const opposite = first && nearestOpposite(first, group.samples);
    const most = narrow ? 2 : group.samples.length < 3 ? 2 : 3;
    const below = branch && group.samples.filter((sample) => branch.has(sample.index));
    const chosen = branch ? chooseCards(below, picked, most) : all || rater.ranking ? order(group.samples) : compare && opposite ? [first, opposite] : chooseCards(group.samples, picked, most);
    show(cards, cardsPanel({ group, rater, shown: chosen, lens: cursor.lens, cursor: { ...cursor, sample: picked }, onPick: pick, onToken: token, compare: compare && !branch, all: all || rater.ranking, limit: header.config.max_completion_length, branch, onTree: toggleTree,
      tree: forks && treePanel({ group, chosen: branch, width: Math.max(260, (widths.get(cards) || cards.clientWidth) - 30), onPick: pickBranch }) }));
    tokenValue.update(group, picked, cursor.sample === picked ? cursor.tok : null);
    show(table, samplesTable({ group, shown: branch ? [...branch] : chosen.map((sample) => sample.index), picked, graded, other: otherAdvantages(), onPick: pick }));
    const points = group.samples.some((sample) => known(sample.delta_logp)) && !group.dead;
    effect.hidden = !points;
    if (points) show(effect, h("h3", {}, "Advantage (across) and Δ log p (up)"), scatter(group.samples, picked), h("p", {}, scatterSentence(group.samples)));
    show(share, sharePanel(group, list));
    share.hidden = !group.divisor;
    show(parts, partsPanel(first ?? group.samples[0], header, toggleWhatIf && ((name) => openRewardCode({ root: element, store, name, step: group.step, sample: first ?? group.samples[0] }))));
  }

  /** Advantages under the drawer's settings or under the chosen divisor, in sample order; null for the recorded ones. */
  function otherAdvantages() {
    const { group } = shown;
    if (!group.divisor) return null;
    const drawer = group.mode ? null : (whatIf?.advantages(group.step, group.k) ?? null);
    return drawer ?? (choice === null ? null : advantagesBy(group, choice));
  }

  function drawHero(picked, graded, narrow) {
    const { group } = shown;
    const trained = Boolean(group.divisor); // a held-out evaluation has no advantages
    const own = trained ? usedScaling(group.divisor) : null;
    const now = choice ?? own;
    strip.hidden = !trained;
    const width = widths.get(art) || art.clientWidth || Math.max(300, innerWidth - (narrow ? 30 : 640));
    show(art, advantagePicture({ group, advantages: trained ? advantagesBy(group, now) : null, sigma: trained ? sigmaOf(group, now) : null, picked, binary: !graded }, width, !trained ? 104 : narrow ? 172 : 206));
    if (!trained) return;
    const also = header.config.multi_objective_aggregation === "normalize_then_sum" ? "each reward was normalised in the group first (GDPO)" : header.config.kl_in === "reward" ? "the KL penalty is part of the reward" : "";
    show(strip, advantageFormula({ group, scalings, picked, choice: now, narrow, also, onChoose: (name) => {
      choice = name === own ? null : name;
      const key = document.activeElement?.dataset?.key;
      paint();
      if (key) strip.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    } }));
  }

  // Reading an element's width during a redraw would force a second layout of the page.
  const sizes = new ResizeObserver((seen) => {
    for (const { target, contentRect } of seen) if (contentRect.width) widths.set(target, Math.round(contentRect.width));
    if (shown && element.offsetParent && seen.some(({ target }) => target === art)) paint();
  });
  sizes.observe(art);
  sizes.observe(cards);
  element.addEventListener("click", (event) => {
    const dot = event.target.closest("svg [data-sample]");
    if (dot) pick(Number(dot.dataset.sample));
  });

  function nothing(words) {
    shown = null;
    missing.textContent = words;
    missing.hidden = false;
    hero.hidden = main.hidden = true;
    show(head);
  }

  return {
    element,
    slot,
    async update({ cursor, step }) {
      if (step === null) return nothing("No group yet. The first appears after the first step.");
      let list, group;
      try {
        const found = await follow(store.step(step, cursor.mode));
        if (!found) return;
        list = found.groups;
        const wanted = list.findIndex((one) => one.prompt_id === cursor.prompt);
        const at = wanted >= 0 ? wanted : Math.min(rank, list.length - 1);
        if (at < 0) return nothing(`Step ${step} has no groups.`);
        group = await follow(store.group(found.step, list[at].k, cursor.mode));
        if (!group) return;
        rank = at;
      } catch (error) {
        return nothing(error.status ? error.message : "No response from the server yet.");
      }
      const other = whatIf?.columns ?? null;
      if (shown?.group === group && shown.cursor === cursor && shown.newest === store.newest && shown.other === other) return;
      if (shown?.group !== group) choice = branch = null;
      all = all && shown?.group === group;
      shown = { group, list, cursor, newest: store.newest, other };
      missing.hidden = true;
      main.hidden = false;
      const focus = element.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
      paint();
      if (focus) element.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
      if (cursor.step !== null && cursor.prompt !== group.prompt_id) go({ prompt: group.prompt_id });
      if (cursor.tok !== null) element.querySelector(`[data-card="${pickedOf(shown)}"] [data-tok="${cursor.tok}"]`)?.scrollIntoView({ block: "nearest" });
    },
    /** The group on screen and those beside it. */
    get shown() {
      return shown;
    },
    pickNumber: (number) => shown && number <= shown.group.samples.length && pick(shown.group.samples[number - 1].index),
    toggleTree,
    /** Redraw after a rating changed, or ranking began or ended. */
    repaint: () => shown && keepingFocus(element, paint),
    thumb: (good) => shown && rater.thumb(shown.group, pickedOf(shown), good),
    undo: () => shown && rater.undo(shown.group),
    toggleCompare() {
      compare = !compare;
      all = false;
      branch = null;
      if (shown) paint();
    },
    toggleAll() {
      all = !all;
      branch = null;
      if (shown) paint();
    },
    nextLens() {
      const tokens = shown?.group.samples.find((sample) => sample.tokens)?.tokens;
      const there = LENS_ORDER.filter((name) => available(name, tokens));
      if (there.length) go({ lens: there[(there.indexOf(shown.cursor.lens) + 1) % there.length] });
    },
    /** Branch from the chosen token; without one, choose the token at which the picked sample diverges from its opposite. */
    branch() {
      if (!shown) return;
      const { group, cursor } = shown;
      if (cursor.tok !== null && cursor.sample !== null) return tokenValue.start();
      const first = group.samples.find((sample) => sample.index === pickedOf(shown));
      const opposite = first && nearestOpposite(first, group.samples);
      if (first?.tokens) go({ sample: first.index, tok: Math.min(opposite ? sharedPrefix(first, opposite) : 0, first.tokens.text.length - 1) });
    },
    /** Walk along the tokens of the picked card. */
    walkTokens(by, sample) {
      const tokens = shown?.group.samples.find((one) => one.index === sample)?.tokens;
      if (!tokens) return;
      const from = shown.cursor.sample === sample && shown.cursor.tok !== null ? shown.cursor.tok + by : by > 0 ? 0 : tokens.text.length - 1;
      go({ sample, tok: Math.max(0, Math.min(tokens.text.length - 1, from)) });
    },
    forget: () => (shown = null),
  };
}

// A short instruction of the data set beside the question; long ones are left out.
const instruction = (group) => {
  const note = group.columns?.instruction ?? group.columns?.note;
  return typeof note === "string" && note.length < 80 ? oneLine(note, 80) : "";
};
