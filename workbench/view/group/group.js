// The Group view, the heart: one prompt, one step. Reward, arithmetic, tokens, and what the update then did.

import { askedBy, arithmetic, sigmaOf, used } from "./advantage_formula.js";
import { cardsPanel } from "./sample_cards.js";
import { LENSES as LENS_ORDER } from "../common/cursor.js";
import { makeTokenValue } from "./token_value.js";
import { h, keepingFocus, oneLine, part, show, visible } from "../common/dom.js";
import { known } from "../common/format.js";
import { order, partsPanel, scatter, scatterSentence, sharePanel, siblingsTable } from "./update_effect.js";
import { picture } from "./advantage_picture.js";
import { chooseCards, nearestOpposite, sharedPrefix } from "../common/siblings.js";
import { available, LENSES } from "./tokens.js";
import { treePanel } from "./prefix_tree.js";
import { openRewardCode } from "./reward_code.js";
import { takeLatest } from "../common/latest.js";

const isNarrow = () => matchMedia("(max-width: 600px)").matches;

/** ‹ Step 12 ›: a figure with a way to both sides. */
function stepper(words, back, on, { first, last, name }) {
  return h("span", { class: "step", role: "group", "aria-label": name },
    h("button", { type: "button", "aria-label": `${name} back`, disabled: first, "data-key": `${name}-back`, on: { click: back } }, "‹"),
    h("b", {}, words),
    h("button", { type: "button", "aria-label": `${name} on`, disabled: last, "data-key": `${name}-on`, on: { click: on } }, "›"));
}

/** `go(change)` moves the cursor; `turn(by)` goes to another step, `walk(by)` to another group of this one. */
export function makeGroup({ store, header, rater, go, turn, walk, whatIf, askWhatIf, ask = null }) {
  const head = h("div", { class: "head" });
  const art = h("div", { class: "art" });
  const strip = h("div", { class: "arith" });
  const hero = h("section", { class: "panel hero", "aria-label": "From reward to advantage" }, art, strip);
  const siblings = h("section", { class: "panel sib", "aria-label": "Siblings" });
  const cards = h("div", { class: "cardsbody" });
  const credit = makeTokenValue({ store, ask, go });
  const answers = h("section", { class: "panel cardspanel", "aria-label": "Answers" }, cards, credit.element);
  const happened = h("section", { class: "panel sec" });
  const share = h("section", { class: "panel sec" });
  const parts = h("section", { class: "panel sec" });
  const rail = h("div", { class: "rail" }, happened, share, parts);
  const missing = h("p", { class: "missing", role: "status", hidden: true });
  const main = h("div", { class: "lens" }, siblings, answers, rail);
  const slot = h("div", { class: "slot" });
  const element = h("div", { class: "view viewgroup" }, head, missing, slot, hero, main);
  const follow = takeLatest(element);

  const widths = new Map(); // of the parts that are drawn to measure, as last seen
  hero.hidden = main.hidden = true; // until there is something to show
  let shown = null; // {group, list, cursor}
  let rank = 0;
  let choice = null;
  let compare = false;
  let all = false;
  let forks = false; // whether the tree is shown
  let branch = null; // the indices of the answers of a chosen branch

  const headPart = part(head, (step, newest, place, total, question, answer, note, lens, lenses, mode) => [
    stepper(mode ? `Check at ${step}` : `Step ${step}`, () => turn(-1), () => turn(1), { first: step <= 0, last: step >= newest, name: "Step" }),
    stepper(`Group ${place} of ${total}`, () => walk(-1), () => walk(1), { first: place <= 1, last: place >= total, name: "Group" }),
    h("h1", { dir: "auto", title: question.length > 60 ? visible(question, 2000) : null }, visible(question, 300)),
    h("span", { class: "gold i2" }, answer !== null && ["gold answer ", h("b", { class: "mono" }, oneLine(answer, 80))], note && h("span", { class: "i3 desk" }, `  ${note}`)),
    h("span", { class: "sp" }),
    h("span", { class: "lensbar" }, lenses.some(([, there]) => there) && [h("span", { class: "note desk", id: "lensby" }, "Colour tokens by"), h("span", { class: "seg lenses", role: "group", "aria-labelledby": "lensby" }, lenses.map(([name, there]) =>
      h("button", { type: "button", class: name === lens ? "on" : "", "aria-pressed": String(name === lens), disabled: !there, title: there ? null : "Not recorded in this step", "data-key": `lens-${name}`, on: { click: () => go({ lens: name }) } }, LENSES[name].label)))],
      askWhatIf && h("button", { type: "button", class: "btn desk", "data-key": "whatif", on: { click: askWhatIf } }, "What if… ", h("kbd", {}, "w")),
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

  /** Lay the answers of a branch open; the same branch again closes it. */
  function pickBranch(node) {
    const indices = new Set(node.samples.map((sample) => sample.index));
    const again = branch && branch.size === indices.size && [...indices].every((index) => branch.has(index));
    all = false;
    branch = again || indices.size === shown.group.samples.length ? null : indices;
    const first = order(node.samples)[0].index;
    const before = shown.cursor;
    go({ sample: first, tok: node.samples[0].tokens ? node.from : null });
    if (shown.cursor === before) keepingFocus(element, paint); // the cursor stood there already
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
    const room = narrow ? 2 : group.samples.length < 3 ? 2 : 3;
    const below = branch && group.samples.filter((sample) => branch.has(sample.index));
    const chosen = branch ? chooseCards(below, picked, room) : all || rater.ranking ? order(group.samples) : compare && opposite ? [first, opposite] : chooseCards(group.samples, picked, room);
    show(cards, cardsPanel({ group, rater, shown: chosen, lens: cursor.lens, cursor: { ...cursor, sample: picked }, onPick: pick, onToken: token, compare: compare && !branch, all: all || rater.ranking, limit: header.config.max_completion_length, branch, onTree: toggleTree,
      tree: forks && treePanel({ group, chosen: branch, width: Math.max(260, (widths.get(cards) || cards.clientWidth) - 30), onPick: pickBranch }) }));
    credit.update(group, picked, cursor.sample === picked ? cursor.tok : null);
    show(siblings, siblingsTable({ group, shown: branch ? [...branch] : chosen.map((sample) => sample.index), picked, graded, other: otherAsk(), onPick: pick }));
    const points = group.samples.some((sample) => known(sample.delta_logp)) && !group.dead;
    happened.hidden = !points;
    if (points) show(happened, h("h3", {}, "Asked (across) against happened (up)"), scatter(group.samples, picked), h("p", {}, scatterSentence(group.samples)));
    show(share, sharePanel(group, list));
    share.hidden = !group.divisor;
    show(parts, partsPanel(first ?? group.samples[0], header, askWhatIf && ((name) => openRewardCode({ root: element, store, name, step: group.step, sample: first ?? group.samples[0] }))));
  }

  /** What the drawer's settings, or the divisor that is looked at, would have asked of each answer; null for what was asked. */
  function otherAsk() {
    const { group } = shown;
    if (!group.divisor) return null;
    const drawer = group.mode ? null : (whatIf?.advantages(group.step, group.k) ?? null);
    return drawer ?? (choice === null ? null : askedBy(group, choice));
  }

  function drawHero(picked, graded, narrow) {
    const { group } = shown;
    const asks = Boolean(group.divisor); // a held-out check asks nothing
    const own = asks ? used(group.divisor) : null;
    const now = choice ?? own;
    strip.hidden = !asks;
    const width = widths.get(art) || art.clientWidth || Math.max(300, innerWidth - (narrow ? 30 : 640));
    show(art, picture({ group, asked: asks ? askedBy(group, now) : null, sigma: asks ? sigmaOf(group, now) : null, picked, binary: !graded }, width, !asks ? 104 : narrow ? 172 : 206));
    if (!asks) return;
    const decorated = header.config.multi_objective_aggregation === "normalize_then_sum" ? "each reward was normalised in the group first (GDPO)" : header.config.kl_in === "reward" ? "the KL penalty is part of the reward" : "";
    show(strip, arithmetic({ group, picked, choice: now, narrow, decorated, onChoose: (name) => {
      choice = name === own ? null : name;
      const key = document.activeElement?.dataset?.key;
      paint();
      if (key) strip.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
    } }));
  }

  // Asking an element for its width in the middle of a redraw would lay the page out twice.
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
        const answer = await follow(store.step(step, cursor.mode));
        if (!answer) return;
        list = answer.groups;
        const found = list.findIndex((one) => one.prompt_id === cursor.prompt);
        const at = found >= 0 ? found : Math.min(rank, list.length - 1);
        if (at < 0) return nothing(`Step ${step} has no groups.`);
        group = await follow(store.group(answer.step, list[at].k, cursor.mode));
        if (!group) return;
        rank = at;
      } catch (error) {
        return nothing(error.status ? error.message : "No answer from the server yet.");
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
    /** Something was said about an answer, or ranking began or ended. */
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
    /** Branch from the chosen token; where none is chosen, choose the one at which the picked answer parts from its opposite. */
    branch() {
      if (!shown) return;
      const { group, cursor } = shown;
      if (cursor.tok !== null && cursor.sample !== null) return credit.start();
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

// Where the rendered prompt says more than the question, its few words of instruction are worth showing; long ones are not.
const instruction = (group) => {
  const note = group.columns?.instruction ?? group.columns?.note;
  return typeof note === "string" && note.length < 80 ? oneLine(note, 80) : "";
};
