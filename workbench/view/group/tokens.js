// Tokens coloured by a lens: one figure a token. Scales are fixed, so that two cards can be compared.

import { h, oneLine, visible } from "../common/dom.js";
import { count, fixed, known, signed } from "../common/format.js";

const DIVERGING = [0.04, 0.2, 0.5];
const SEQUENTIAL = [0.08, 0.25, 0.5, 0.75, 0.92]; // of the domain: below the first a token stays unmarked
const FIRST = 320; // tokens of a sample that are drawn at once; more than a card shows
const AHEAD = 64; // tokens drawn after the fork or the chosen token
const LONG = 14; // characters; a longer token may wrap, or it would not fit a card

const policy = (tokens) => tokens.policy ?? tokens.sampler;
const k3 = (logRatio) => Math.exp(logRatio) - logRatio - 1;

/** Lenses by name: the value of token i from its arrays t and its advantage a, the arrays that needs, its colours and its formula. */
export const LENSES = {
  push: { label: "Push", needs: [], value: (t, i, a) => a * (1 - Math.exp(policy(t)[i])), signed: true, ends: ["push down", "up"], formula: "push = A · (1 − p)" },
  advantage: { label: "A", needs: [], value: (t, i, a) => a, signed: true, ends: ["down", "up"], formula: "A, the same for every token" },
  delta: { label: "Δ log p", needs: ["after"], value: (t, i) => t.after[i] - policy(t)[i], signed: true, ends: ["less likely", "more"], formula: "Δ log p = after − before" },
  weight: { label: "Weight", needs: ["weight", "weight_scale"], value: (t, i) => -t.weight[i] * t.weight_scale, signed: true, ends: ["loss pushes down", "up"], formula: "−∂loss/∂log p × tokens" },
  ratio: { label: "Ratio", needs: ["after"], value: (t, i) => Math.exp(t.after[i] - policy(t)[i]) - 1, say: (value) => fixed(1 + value, 3), signed: true, ends: ["less likely", "more"], formula: "ratio = p after ÷ p before" },
  mismatch: { label: "Mismatch", needs: ["policy"], value: (t, i) => t.policy[i] - t.sampler[i], signed: true, ends: ["trainer lower", "higher"], formula: "log(p trainer ÷ p sampler)" },
  kl: { label: "KL", needs: ["reference"], value: (t, i) => k3(t.reference[i] - policy(t)[i]), domain: 1, ends: ["0", "1 nat"], formula: "KL(policy ‖ base), k3" },
  entropy: { label: "Entropy", needs: ["entropy"], value: (t, i) => t.entropy[i], domain: Math.LN2, ends: ["0", "ln 2"], formula: "entropy, nats" },
};

/** Whether the arrays that a lens needs were recorded for these tokens. */
export const available = (name, tokens) => Boolean(tokens && policy(tokens)) && LENSES[name].needs.every((array) => tokens[array]);

/** The class that colours a value under a lens: n3..n1, p1..p3, e1..e5, or none. */
export function step(name, value) {
  const lens = LENSES[name];
  if (!known(value)) return "";
  const cuts = lens.signed ? DIVERGING : SEQUENTIAL;
  const size = lens.signed ? Math.abs(value) : value / lens.domain;
  const level = cuts.filter((cut) => size >= cut).length;
  return level === 0 ? "" : lens.signed ? `${value > 0 ? "p" : "n"}${level}` : `e${level}`;
}

/** The legend of a lens: the colours between its two ends. */
export const lensLegend = (name) => {
  const lens = LENSES[name];
  const steps = lens.signed ? ["n3", "n2", "n1", "n0", "p1", "p2", "p3"] : ["n0", "e1", "e2", "e3", "e4", "e5"];
  return h("span", { class: "lenslegend" }, h("span", { class: "nw" }, lens.ends[0]), h("span", { class: "swatches" }, steps.map((one) => h("i", { class: `tk ${one}` }))), h("span", { class: "nw" }, lens.ends[1]),
    h("span", { class: "q desk", tabindex: 0, "data-tip": `lens-${name}`, "data-key": "lensformula" }, lens.formula));
};

/**
 * One sample's tokens as spans. `cut`: number of shared tokens before the samples diverge; `different`: a set of indices to underline;
 * `onPick(index)` is called on click; `first`: tokens drawn before the card is scrolled. Without token arrays the text is plain.
 */
export function tokenText(sample, { lens, cut = 0, different = null, picked = null, onPick, shared = true, first = FIRST }) {
  const { tokens } = sample;
  if (!tokens) return h("div", { class: "toks plain", dir: "auto" }, visible(sample.text));
  const colour = available(lens, tokens) ? (i) => step(lens, LENSES[lens].value(tokens, i, sample.advantage ?? 0)) : () => "";
  const box = h("div", { class: "toks", dir: "auto", tabindex: 0, role: "group", "aria-label": `Tokens of sample ${sample.index + 1}`, "data-sample-tokens": sample.index, "data-key": `toks-${sample.index}` });
  const last = tokens.text.length - 1;
  const from = shared ? 0 : Math.max(0, cut - 4);
  if (from) box.append(h("span", { class: "i3" }, "… "));

  const draw = (start, end) => {
    const part = document.createDocumentFragment();
    for (let i = start; i < end; i++) {
      if (i === cut && cut > 0) withoutTrailingBreak(part).append(h("span", { class: "cut lab" }, h("span", {}, `${cut} ${cut === 1 ? "token" : "tokens"} shared, then`)));
      const text = tokens.text[i];
      const ends = i === last && sample.finish_reason === "stop" && (text === "" || /^<.*>$/.test(text)) && !sample.text.endsWith(text || "\u0000");
      const span = document.createElement("span");
      span.className = `tk ${colour(i)}${i === cut && cut > 0 ? " split" : ""}${different?.has(i) ? " differs" : ""}${i === picked ? " picked" : ""}${text.length > LONG ? " long" : ""}`;
      span.dataset.tok = i;
      span.dataset.tip = "token";
      if (ends) span.append(h("span", { class: "eos" }));
      else fillToken(span, text);
      part.append(span, document.createElement("wbr"));
    }
    return part;
  };

  const until = Math.min(last + 1, Math.max(from + first, cut + AHEAD, (picked ?? 0) + AHEAD));
  box.append(draw(from, until));
  if (until <= last) box.append(...rest(tokens, until, last + 1, draw));
  box.addEventListener("click", (event) => {
    const at = event.target.closest("[data-tok]");
    if (at) onPick?.(Number(at.dataset.tok));
  });
  return box;
}

// The rest of a long sample: a button that presses itself when it scrolls into view. The text is there but hidden, so that the browser's
// own search finds it; found text is shown plain until the button is pressed.
function rest(tokens, start, end, draw) {
  const button = h("button", { type: "button", class: "link moretokens" }, `… ${count(end - start, "more token")}`);
  const plain = h("span", { hidden: "until-found", class: "unread", on: { beforematch: () => (watch.disconnect(), (button.textContent = "colour the rest")) } }, visible(tokens.text.slice(start, end).join(""), 200_000));
  const show = () => {
    watch.disconnect();
    const next = Math.min(end, start + FIRST);
    plain.remove();
    button.replaceWith(draw(start, next), ...(next < end ? rest(tokens, next, end, draw) : []));
  };
  const watch = new IntersectionObserver((seen) => seen.some(({ isIntersecting }) => isIntersecting) && show(), { root: null, rootMargin: "60px" });
  button.addEventListener("click", (event) => (event.stopPropagation(), show()));
  watch.observe(button);
  return [button, plain];
}

// The rule at the split takes a line of its own: a line break right before it would leave an empty one.
function withoutTrailingBreak(part) {
  const spans = part.querySelectorAll(".tk");
  const last = spans[spans.length - 1]?.lastChild;
  if (last?.nodeType === Node.TEXT_NODE && last.data === "\n") last.remove();
  return part;
}

// A line break is a grey return mark and then the break itself, both with the token's background.
function fillToken(span, text) {
  if (!text.includes("\n")) return void (text && span.append(document.createTextNode(visible(text, 4000))));
  const lines = text.split("\n");
  lines.forEach((line, i) => {
    if (line) span.append(document.createTextNode(visible(line, 4000)));
    if (i < lines.length - 1) span.append(h("span", { class: "ret" }), document.createTextNode("\n"));
  });
}

/** The tooltip of a token: its probability before and after the step and in the reference, entropy, and the lens' value. */
export function describeToken(sample, i, lens) {
  const { tokens } = sample;
  const p = (array) => (array && known(array[i]) ? fixed(Math.exp(array[i]), 3) : null);
  const before = p(policy(tokens));
  const rows = [
    ["p, before", before],
    ["p, after the step", p(tokens.after)],
    ["p, base model", p(tokens.reference)],
    ["p, sampler", tokens.policy && Math.abs(tokens.policy[i] - tokens.sampler[i]) > 1e-3 ? p(tokens.sampler) : null],
    ["Entropy", known(tokens.entropy?.[i]) ? `${fixed(tokens.entropy[i], 3)} nats` : null],
    ["KL to base", tokens.reference ? `${fixed(k3(tokens.reference[i] - policy(tokens)[i]), 3)} nats` : null],
    ["Weight in the loss", tokens.weight ? signed(tokens.weight[i], 5) : null],
  ].filter(([, value]) => value !== null);
  const value = available(lens, tokens) ? LENSES[lens].value(tokens, i, sample.advantage ?? 0) : null;
  const push = LENSES.push.value(tokens, i, sample.advantage ?? 0);
  return {
    title: oneLine(JSON.stringify(tokens.text[i]), 60),
    aside: `token ${i + 1} of ${tokens.text.length}`,
    text: known(value) && lens !== "push" && lens !== "advantage" ? `${LENSES[lens].label}: ${LENSES[lens].say?.(value) ?? signed(value, 3)}` : "",
    formula: [`push = A · (1 − p)`, `${signed(sample.advantage)} · (1 − ${before}) = ${signed(push)}`],
    rows,
  };
}
