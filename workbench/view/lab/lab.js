// The reward lab: write, try, forecast, attack, use. The state is here; each part (editor, table, forecast, ...) is drawn from it.

import { h, show } from "../common/dom.js";
import { routes } from "../common/fetch.js";
import { count, plain } from "../common/format.js";
import { listen } from "../common/keys.js";
import { get, post, stream } from "./api.js";
import { makeAttacks } from "./attacks.js";
import { openDrafts } from "./drafts.js";
import { makeEditor } from "./editor.js";
import { makeForecast } from "./forecast.js";
import { makeToolbar } from "./toolbar.js";
import { makePrefer } from "./prefer.js";
import { defaults, makeSource } from "./sample_source.js";
import { makeTable } from "./table.js";
import { makeCatalogue, makeWeights } from "./weights.js";
import { headline } from "./headline.js";

const { postJson } = routes("/wb/api/");
const isNarrow = () => matchMedia("(max-width: 600px)").matches;

export async function mount(root) {
  let drafts;
  const saved = h("span", { class: "lab-saved i3", role: "status" });
  const state = { functions: null, problem: null, looking: null, result: null, group: null, range: [0, 1], forecast: null, size: null, attack: null, busy: false, attacking: false, words: "", tried: null, note: null, whole: false, against: undefined, trial: null, opened: null };
  try {
    drafts = await openDrafts({ onSaved: showSaved, onLook: looked });
  } catch (error) {
    return show(root, h("p", { class: "missing", role: "status" }, error.status ? error.message : "Not connected. Reload the page to try again."));
  }
  const query = new URLSearchParams(location.search);
  const start = drafts.runs.length ? defaults(drafts, "run", query.get("run")) : defaults(drafts, "base");
  let running = null;
  let peeking = 0;

  // -- parts -----------------------------------------------------------------------------------------------
  const editor = makeEditor({ onChange: typed, onRun: run });
  const weights = makeWeights({ onParts: (parts) => (drafts.weigh(parts), changed()), onLine: toLine });
  const catalogue = makeCatalogue(drafts.catalogue, { onAdd: (name) => bring(name, false), onStart: (name) => bring(name, true) });
  const source = makeSource(drafts, { onChange: elsewhere, start });
  const table = makeTable({ onStep: (by) => open(state.group.k + by), onLine: toLine, onCase: (group, sample) => keepCase({ prompt: group.question, answer: group.answer ?? "", completion: sample.text }) });
  const forecast = makeForecast({ onSize: resize, onGroup: open });
  const attacks = makeAttacks({ onAttack: attack, onLine: toLine, onCase: (completion) => keepCase({ prompt: state.group?.question ?? "", answer: state.group?.answer ?? "", completion }) });
  const prefer = makePrefer({ onGroup: open });

  const title = h("h1", {});
  const note = h("p", { class: "lab-note", role: "status" });
  const toolbar = makeToolbar({
    saved, run, cancel, attack, use, give, view, goOn, toLine, keep: () => keep(), catalogue: catalogue.open,
    whole: (shown) => ((state.whole = shown), compare(), draw()),
    against: (chosen) => ((state.against = chosen === "run" ? null : chosen === "none" ? undefined : Number(chosen)), pickedAgainst()),
  });
  const { acts, tabs, tools, checks, complaint, beside, printed } = toolbar;
  const tryhead = h("div", { class: "lab-tryhead" });
  const progress = h("div", { class: "lab-progress", role: "status" });
  show(root,
    h("div", { class: "lab-bar" }, title, h("span", { class: "sp" }), acts.element), note,
    h("div", { class: "lab-top" },
      h("section", { class: "panel lab-left", "aria-label": "Code" }, tabs.element, h("div", { class: "lab-editor" }, editor.element), complaint.element, weights.element, tools.element, checks.element),
      h("section", { class: "panel lab-right", "aria-label": "Trial" }, tryhead, source.rows, progress, table.element, printed.element)),
    h("div", { class: "lab-bottom" }, forecast.element, attacks.element, prefer.element),
    h("div", { class: "keys" }, h("span", { class: "keylist" }, [["ctrl ↵", "run"], ["a", "attack"], ["j k", "group"], ["[ ]", "version"], ["n", "add as my case"], ["esc", "leave the editor"]].map(([key, words]) => h("span", {}, h("kbd", {}, key), " ", words))),
      h("span", { class: "sp" }), h("span", {}, `Reward code runs in a process of its own: ${plain(drafts.limits.seconds)} s a call`)),
    catalogue.element);

  tryhead.append(source.element, h("span", { class: "sp" }), beside.element);

  // -- drawing ---------------------------------------------------------------------------------------------
  const label = () => (state.looking ? `v${state.looking.n}` : drafts.same ? `v${drafts.same.n}` : `v${drafts.next}*`);
  const fresh = () => state.tried === signature();
  const signature = () => JSON.stringify([written(), source.choice, against()]);
  const written = () => (state.looking ? { code: state.looking.code, parts: state.looking.parts } : drafts.written);

  /** What the new reward is compared with: a version's number, or null for the run's own reward. */
  function against() {
    if (state.against !== undefined) return state.against;
    if (source.choice.kind === "run" && !drafts.before) return null;
    const now = state.looking?.n ?? drafts.same?.n ?? null;
    const base = drafts.before && drafts.before.n !== now ? drafts.before : drafts.versions.findLast(({ n }) => n < (now ?? Infinity));
    return base ? base.n : null;
  }

  function draw() {
    const { looking, result, group, busy } = state;
    const complaintNow = looking ? null : state.note ?? state.problem;
    title.textContent = headline({ label: label(), problem: looking ? null : state.problem, result: fresh() ? result : null, attack: state.attacked === JSON.stringify(written()) ? state.attack : null, busy, stale: Boolean(result) });
    acts.update(busy, state.attacking, !looking && !drafts.same && !state.problem && drafts.code.trim() !== "", drafts.next, !state.problem, Boolean(looking || drafts.same), taker());
    tabs.update(drafts.versions.map(({ n, title }) => ({ n, title })), looking?.n ?? null, drafts.base, drafts.next, saved.textContent, drafts.same?.n ?? null);
    tools.update(looking && { n: looking.n, created: looking.created, sha: looking.sha, code: looking.code, parts: looking.parts }, drafts.before ? drafts.base : null, state.whole, !state.whole);
    complaint.update(complaintNow);
    complaint.element.hidden = !complaintNow;
    weights.update(looking ? looking.parts.map(({ name }) => ({ name, line: 1 })) : state.functions, written().parts, Boolean(looking));
    checks.update(fresh() ? result?.checks : null, fresh() ? result?.ended : null);
    checks.element.hidden = !checks.element.childElementCount;
    const options = [...(source.choice.kind === "run" ? [["run", "the run's own reward"]] : [["none", "nothing"]]), ...drafts.versions.toReversed().map(({ n, title }) => [String(n), `v${n} ${title}`.trim()])];
    const now = against();
    beside.update(now === null ? options[0][0] : String(now), options);
    progress.textContent = busy ? state.words : "";
    progress.hidden = !busy;
    root.classList.toggle("lab-stale", Boolean(result) && !fresh() && !busy);
    table.update({ group, range: state.range, label: state.opened?.label ?? label(), oldLabel: state.opened?.old_words ?? "", groups: state.opened?.groups ?? 0, parts: state.opened?.parts ?? [], narrow: isNarrow(), empty: empty() });
    forecast.update({ result, forecast: state.forecast, size: state.size ?? state.opened?.size ?? 8, label: state.opened?.label ?? label(), oldLabel: state.opened?.old_words, chosen: group?.k });
    prefer.update({ result, label: state.opened?.label ?? label(), oldLabel: state.opened?.old_words });
    attacks.update({ attack: state.attack, label: state.attackLabel ?? label(), busy: state.attacking });
    printed.update(fresh() ? result?.printed ?? "" : "");
  }

  const empty = () => source.choice.kind === "base" ? "Run draws samples of this model and scores them. The first time a worker has to start, which takes some seconds; after that they are saved." : source.choice.kind === "cases" ? "Type a prompt, its reference answer and a completion, then run." : "Opening the recorded samples…";

  // -- events ---------------------------------------------------------------------------------------------
  function showSaved(how, more) {
    saved.textContent = { typing: "saving…", saved: "saved", refused: "not saved", away: "saved in this browser; the server does not respond" }[how];
    if (how === "saved" && more) saved.textContent = `saved; the other tab's text is v${more}`;
  }

  function looked({ functions, problem }) {
    state.functions = functions ?? state.functions;
    state.problem = problem;
    if (drafts) complain();
  }

  function complain() {
    const found = state.note ?? state.problem;
    const lines = new Map();
    if (found?.line) lines.set(found.line, found.text);
    if (fresh()) for (const sample of state.group?.samples ?? []) for (const { text, line, chosen } of Object.values(sample.reasons)) if (line && !chosen && !lines.has(line)) lines.set(line, text);
    editor.showErrors(state.looking ? [] : [...lines].map(([line, text]) => ({ line, text })));
    draw();
  }

  function typed(code) {
    if (state.looking) return;
    state.note = null;
    drafts.type(code);
    draw();
  }

  function changed() {
    state.note = null;
    draw();
  }

  function compare() {
    editor.compare(state.looking ? null : drafts.before?.code ?? null, state.whole);
  }

  function view(number) {
    state.looking = number === null ? null : drafts.versions.find(({ n }) => n === number) ?? null;
    state.note = null;
    editor.show(written().code, { frozen: Boolean(state.looking) });
    compare();
    complain();
  }

  async function goOn(version) {
    await drafts.replace(version.code, version.parts, version.n, true);
    state.functions = null;
    view(null);
    await drafts.flush();
  }

  async function bring(name, anew) {
    try {
      const { code } = await post("/add", { code: anew ? "" : drafts.code, name });
      view(null);
      await drafts.replace(code, anew ? [] : drafts.parts, anew ? null : drafts.base, anew);
      editor.show(code);
      compare();
      await drafts.flush();
      complain();
    } catch (error) {
      state.note = { text: error.message, line: null };
      draw();
    }
  }

  function toLine(line) {
    if (state.looking) view(null);
    editor.jump(line);
  }

  async function keep(name = "") {
    try {
      const version = await drafts.keep(name || titleOf(state.functions));
      compare();
      draw();
      return version;
    } catch (error) {
      state.note = { text: error.message, line: null };
      complain();
      return null;
    }
  }

  /** The running run that could continue with this reward: the one whose steps are shown, else the newest. */
  function taker() {
    const alive = drafts.runs.filter((run) => run.alive);
    return alive.find(({ id }) => id === source.choice.run) ?? alive[0] ?? null;
  }

  async function give(to) {
    const version = state.looking ?? drafts.same ?? (await keep());
    if (!version) return;
    const rewards = version.parts.map(({ name, weight, enabled }) => ({ name: `${version.path}:${name}`, weight, enabled }));
    try {
      await postJson(`runs/${encodeURIComponent(to.id)}/commands`, { command: "set", args: { rewards } });
      note.textContent = `${to.name} continues with v${version.n} from its next step.`;
    } catch (error) {
      state.note = { text: error.status ? error.message : "Not sent: the server does not respond.", line: null };
    }
    complain();
  }

  async function use() {
    const version = state.looking ?? drafts.same ?? (await keep());
    if (version) location.assign(`/new?reward=${version.n}`);
  }

  function forgetResult() {
    Object.assign(state, { result: null, forecast: null, group: null, opened: null, trial: null, tried: null });
    table.forget();
  }

  async function elsewhere() {
    cancel();
    state.against = undefined;
    forgetResult();
    draw();
    await peek();
  }

  /** The samples, before any code is run. */
  async function peek() {
    const mine = ++peeking;
    if (source.choice.kind === "cases") {
      if (!source.count) return;
      await source.flush();
    }
    const found = await post("/peek", { on: source.choice }).catch((error) => (source.choice.kind !== "cases" && (state.note = { text: error.message, line: null }), null));
    if (mine !== peeking || state.result || state.busy) return draw();
    if (found) Object.assign(state, { opened: found, trial: found.trial, group: found.group, range: found.range, size: state.size ?? null });
    draw();
  }

  function pickedAgainst() {
    draw();
    if (state.result) run();
  }

  async function run() {
    cancel();
    const control = new AbortController();
    running = control;
    const sent = signature();
    Object.assign(state, { busy: true, note: null, words: "Scoring…" });
    draw();
    if (source.choice.kind === "cases") await source.flush();
    const name = label();
    try {
      await stream("/try", { written: written(), on: source.choice, against: against(), size: state.size }, (message) => take(message, sent, name), control.signal);
    } catch (error) {
      if (control.signal.aborted) return;
      state.note = { text: error.status ? error.message : "Not connected. What you typed is saved; run it again when the server is back.", line: null };
    }
    if (running !== control) return;
    running = null;
    state.busy = false;
    complain();
  }

  function take(message, sent, name) {
    if (message.type === "doing") state.words = message.words;
    else if (message.type === "progress") state.words = `${message.done.toLocaleString("en")} of ${count(message.total, "sample")} scored`;
    else if (message.type === "group") {
      Object.assign(state, { opened: { ...message, label: name }, group: message.group, range: message.range, trial: null });
      state.words = `${message.title}: the first group is scored`;
    } else if (message.type === "refused") {
      state.note = { text: message.error, line: message.line };
      complain();
    } else {
      const k = state.group?.k ?? 0;
      Object.assign(state, { result: message, opened: { ...message, label: name }, forecast: message.forecast, trial: message.trial, range: message.range, tried: sent, size: message.forecast?.size ?? state.size });
      if (message.ended) state.note = { text: `Stopped after ${count(message.tried, "group")}: ${message.ended.text}`, line: message.ended.line };
      open(k);
    }
    draw();
  }

  function cancel() {
    running?.abort();
    running = null;
    if (state.busy) {
      state.busy = false;
      draw();
    }
  }

  async function open(k) {
    if (!state.trial || k < 0 || k >= (state.opened?.groups ?? 0)) return;
    const trial = state.trial;
    try {
      const group = await get(`/trials/${trial}/groups/${k}`);
      if (trial !== state.trial) return;
      state.group = group;
    } catch (error) {
      state.note = { text: error.message, line: null };
    }
    complain();
  }

  let resizes = 0;
  async function resize(size) {
    state.size = size;
    draw();
    if (!state.result) return;
    const mine = ++resizes;
    const found = await get(`/trials/${state.result.trial}/forecast?size=${size}`).catch(() => null);
    if (mine !== resizes || !found) return;
    state.forecast = found;
    draw();
  }

  async function attack() {
    if (state.attacking) return;
    const sent = written();
    Object.assign(state, { attacking: true, note: null, attackLabel: label() });
    draw();
    if (source.choice.kind === "cases") await source.flush();
    try {
      const found = await post("/attack", { written: sent, on: source.choice, against: against() });
      if (found.type === "refused") state.note = { text: found.error, line: found.line };
      else Object.assign(state, { attack: found, attacked: JSON.stringify(sent) });
    } catch (error) {
      state.note = { text: error.status ? error.message : "Not connected. What you typed is saved.", line: null };
    }
    state.attacking = false;
    complain();
  }

  function keepCase(one) {
    source.keep(one);
    state.words = "";
    note.textContent = `Added to my cases (${source.count}).`;
    setTimeout(() => (note.textContent = ""), 3000);
  }

  const turn = (by) => {
    const order = [...drafts.versions.map(({ n }) => n), null];
    const at = order.indexOf(state.looking?.n ?? null);
    const next = order[at + by];
    if (next !== undefined) view(next);
  };
  listen({
    a: attack,
    j: () => state.group && open(state.group.k + 1),
    k: () => state.group && open(state.group.k - 1),
    "[": () => turn(-1),
    "]": () => turn(1),
    n: () => {
      const focused = document.activeElement?.closest?.("[data-sample]")?.dataset.sample;
      const sample = state.group?.samples.find(({ index }) => index === Number(focused ?? 0));
      if (sample) keepCase({ prompt: state.group.question, answer: state.group.answer ?? "", completion: sample.text });
    },
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.defaultPrevented) {
      event.preventDefault();
      run();
    }
  });
  addEventListener("pagehide", () => drafts.flush());
  matchMedia("(max-width: 600px)").addEventListener("change", draw);

  showSaved("saved");
  view(null);
  await Promise.all([post("/look", drafts.written).then(looked).catch(() => null), peek()]);
  root.dataset.ready = "";
}

/** A version's title: its functions. */
const titleOf = (functions) => (functions ?? []).map(({ name }) => name).slice(0, 3).join(" + ");
