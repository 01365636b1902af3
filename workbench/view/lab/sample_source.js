// The samples that a reward is tried on: of a base model, of recorded steps, or the user's test cases; with the rows of the cases.

import { h, oneLine, part } from "../common/dom.js";
import { post } from "./api.js";

const DELAY = 500;
const WORDS = { base: "Base model's samples", run: "Recorded steps", cases: "My cases" };

/** `onChange(choice)` when other samples are chosen. */
export function makeSource(drafts, { onChange, start }) {
  const cases = drafts.cases.length ? drafts.cases : [];
  let choice = start;
  let timer = null;
  const element = h("div", { class: "lab-source" });
  const rows = h("div", { class: "lab-cases" });

  const head = part(element, (now, total) => [
    h("h2", {}, "Try it on"),
    h("span", { class: "seg", role: "group", "aria-label": "Try it on" }, ["base", "run", "cases"].map((kind) =>
      h("button", { type: "button", class: kind === now.kind ? "on" : "", "aria-pressed": String(kind === now.kind), disabled: kind === "run" && !drafts.runs.length, "data-key": `on-${kind}`, on: { click: () => pick(kind) } },
        kind === "cases" && total ? `${WORDS[kind]} (${total})` : WORDS[kind]))),
    now.kind === "run" && [
      select("Run", now.run, drafts.runs.map((run) => [run.id, `${oneLine(run.name, 28)}${run.alive ? " (running)" : ""}`]), (run) => set({ ...choice, run })),
      select("Steps", String(now.last), stepsOf(now.run), (last) => set({ ...choice, last: Number(last) })),
    ],
    now.kind === "base" && [
      select("Whose model, prompts and sampling", now.of, models(drafts), (of) => set({ ...choice, of })),
      select("Prompts", String(now.prompts), [4, 8, 16, 32, 64].map((n) => [String(n), `${n} prompts`]), (prompts) => set({ ...choice, prompts: Number(prompts) })),
      select("Samples", String(now.n), [4, 8, 12, 16, 32].map((n) => [String(n), `${n} samples`]), (n) => set({ ...choice, n: Number(n) })),
    ],
  ]);

  function stepsOf(id) {
    const run = drafts.runs.find((one) => one.id === id);
    const total = (run?.last ?? 0) + 1;
    const found = [1, 5, 20].filter((n) => n < total).map((n) => [String(n), n === 1 ? "last step" : `last ${n} steps`]);
    return [...found, [String(Math.max(1, total)), total === 1 ? "the only step" : `all ${total} steps`]];
  }

  function pick(kind) {
    if (kind === choice.kind) return;
    set(defaults(drafts, kind));
  }

  function set(next) {
    if (next.kind === "run") {
      const offered = stepsOf(next.run).map(([value]) => Number(value));
      if (!offered.includes(next.last)) next = { ...next, last: offered.findLast((n) => n <= next.last) ?? offered[0] };
    }
    choice = next;
    draw();
    onChange(choice);
  }

  function draw() {
    head.update(choice, cases.length);
    rows.hidden = choice.kind !== "cases";
    if (!rows.hidden) drawCases();
  }

  function drawCases() {
    rows.replaceChildren(
      h("p", { class: "note" }, "Cases with the same prompt and reference answer form a group. They are saved."),
      h("div", { class: "lab-caserow lab", "aria-hidden": "true" }, h("span", {}, "Prompt"), h("span", {}, "Reference answer"), h("span", {}, "Completion"), h("span", {})),
      ...cases.map((one, i) => h("div", { class: "lab-caserow" },
        ["prompt", "answer", "completion"].map((name) => {
          const box = h("textarea", { rows: name === "completion" ? 2 : 1, placeholder: { prompt: "Prompt", answer: "Reference answer", completion: "Completion" }[name], "aria-label": `${name === "answer" ? "reference answer" : name} of case ${i + 1}`, spellcheck: "false", on: { input: () => ((one[name] = box.value), save()) } });
          box.value = one[name];
          return box;
        }),
        h("button", { type: "button", class: "link quiet i3", "aria-label": `Remove case ${i + 1}`, on: { click: () => (cases.splice(i, 1), save(), draw()) } }, "Remove"))),
      h("button", { type: "button", class: "btn sm", on: { click: () => (add(cases.at(-1) ?? {}), rows.querySelector(".lab-caserow:last-of-type textarea:nth-of-type(3)")?.focus()) } }, "Add a case"));
  }

  /** Adds a row; without a completion where `isNew`. */
  function add({ prompt = "", answer = "", completion = "" }, isNew = true) {
    cases.push({ prompt: prompt ?? "", answer: answer ?? "", completion: isNew ? "" : completion });
    save();
    draw();
  }

  function save() {
    clearTimeout(timer);
    timer = setTimeout(() => post("/cases", { cases }).catch(() => (timer = setTimeout(save, 4000))), DELAY);
    head.update(choice, cases.length);
  }

  async function flush() {
    clearTimeout(timer);
    await post("/cases", { cases }).catch(() => null);
  }

  draw();
  return {
    element,
    rows,
    flush,
    get choice() {
      return choice;
    },
    keep: (one) => add(one, false),
    get count() {
      return cases.length;
    },
  };
}

/** Defaults of a kind of samples. */
export function defaults(drafts, kind, run = null) {
  if (kind === "run") {
    const found = drafts.runs.find(({ id }) => id === run) ?? drafts.runs[0];
    return { kind: "run", run: found.id, last: Math.min(5, found.last + 1) };
  }
  if (kind === "base") return { kind: "base", of: "preset:embedded", prompts: 16, n: 12 };
  return { kind: "cases" };
}

const models = (drafts) => [...drafts.presets.map(({ name, title }) => [`preset:${name}`, title]), ...drafts.runs.map(({ id, name }) => [`run:${id}`, `as run ${oneLine(name, 28)}`])];

function select(label, value, options, onPick) {
  const box = h("select", { class: "lab-select", "aria-label": label, "data-key": `select-${label}`, on: { change: () => onPick(box.value) } }, options.map(([name, words]) => h("option", { value: name }, words)));
  box.value = value;
  return box;
}
