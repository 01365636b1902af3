// The reward lab: write, try, foresee, attack, use. The state lies here; each part draws itself from it (editor, table, forecast, ...).

import { h, oneLine, part, show } from "../dom.js";
import { routes } from "../fetch.js";
import { count, duration, known, plain } from "../format.js";
import { listen } from "../keys.js";
import { get, post, stream } from "./api.js";
import { makeAttacks } from "./attacks.js";
import { openDesk } from "./desk.js";
import { makeEditor } from "./editor.js";
import { makeForecast } from "./forecast.js";
import { makePrefer } from "./prefer.js";
import { defaults, makeSource } from "./source.js";
import { makeTable } from "./table.js";
import { makeCatalogue, makeWeights } from "./weights.js";
import { headline } from "./words.js";

const SHOWN_VERSIONS = 5;
const { postJson } = routes("/wb/api/");
const isNarrow = () => matchMedia("(max-width: 600px)").matches;

export async function mount(root) {
  let desk;
  const saved = h("span", { class: "lab-saved i3", role: "status" });
  const state = { functions: null, problem: null, looking: null, result: null, group: null, range: [0, 1], forecast: null, size: null, attack: null, busy: false, attacking: false, words: "", tried: null, note: null, whole: false, against: undefined, trial: null, opened: null };
  try {
    desk = await openDesk({ onSaved: told, onLook: looked });
  } catch (error) {
    return show(root, h("p", { class: "missing", role: "status" }, error.status ? error.message : "Not connected. Reload the page to try again."));
  }
  const query = new URLSearchParams(location.search);
  const start = desk.runs.length ? defaults(desk, "run", query.get("run")) : defaults(desk, "base");
  let running = null;
  let peeking = 0;

  // -- parts -----------------------------------------------------------------------------------------------
  const editor = makeEditor({ onChange: typed, onRun: run });
  const weights = makeWeights({ onParts: (parts) => (desk.weigh(parts), changed()), onLine: toLine });
  const catalogue = makeCatalogue(desk.catalogue, { onAdd: (name) => bring(name, false), onStart: (name) => bring(name, true) });
  const source = makeSource(desk, { onChange: elsewhere, start });
  const table = makeTable({ onStep: (by) => open(state.group.k + by), onLine: toLine, onCase: (group, sample) => keepCase({ prompt: group.question, answer: group.answer ?? "", completion: sample.text }) });
  const forecast = makeForecast({ onSize: resize, onGroup: open });
  const attacks = makeAttacks({ onAttack: attack, onLine: toLine, onCase: (completion) => keepCase({ prompt: state.group?.question ?? "", answer: state.group?.answer ?? "", completion }) });
  const prefer = makePrefer({ onGroup: open });

  const title = h("h1", {});
  const note = h("p", { class: "lab-note", role: "status" });
  const acts = h("span", { class: "acts" });
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "Versions" });
  const complaint = h("div", { class: "lab-complaint", role: "alert" });
  const tools = h("div", { class: "lab-tools" });
  const checks = h("div", { class: "lab-checks" });
  const printed = h("div", { class: "lab-printed" });
  const tryhead = h("div", { class: "lab-tryhead" });
  const progress = h("div", { class: "lab-progress", role: "status" });
  show(root,
    h("div", { class: "lab-bar" }, title, h("span", { class: "sp" }), acts), note,
    h("div", { class: "lab-top" },
      h("section", { class: "panel lab-left", "aria-label": "Code" }, tabs, h("div", { class: "lab-editor" }, editor.element), complaint, weights.element, tools, checks),
      h("section", { class: "panel lab-right", "aria-label": "Trial" }, tryhead, source.rows, progress, table.element, printed)),
    h("div", { class: "lab-bottom" }, forecast.element, attacks.element, prefer.element),
    h("div", { class: "keys" }, h("span", { class: "keylist" }, [["ctrl ↵", "run"], ["a", "attack"], ["j k", "group"], ["[ ]", "version"], ["n", "add as my case"], ["esc", "leave the editor"]].map(([key, words]) => h("span", {}, h("kbd", {}, key), " ", words))),
      h("span", { class: "sp" }), h("span", {}, `Reward code runs in a process of its own: ${plain(desk.limits.seconds)} s a call`)),
    catalogue.element);

  tryhead.append(source.element, h("span", { class: "sp" }));
  const againstBox = h("span", { class: "lab-against" });
  tryhead.append(againstBox);

  // -- drawing ---------------------------------------------------------------------------------------------
  const drawActs = part(acts, (busy, attacking, keepable, next, usable, same, taker) => [
    busy ? h("button", { type: "button", class: "btn", "data-key": "run", on: { click: cancel } }, "Stop") : h("button", { type: "button", class: "btn", id: "lab-run", "data-key": "run", on: { click: run } }, "Run ", h("kbd", {}, "ctrl ↵")),
    h("button", { type: "button", class: "btn", id: "lab-attack", disabled: attacking, "data-key": "attack", on: { click: attack } }, attacking ? "Attacking…" : "Attack it"),
    h("button", { type: "button", class: "btn", disabled: !keepable, "data-key": "keep", on: { click: () => keep() } }, same ? "Saved" : `Save v${next}`),
    taker && h("button", { type: "button", class: "btn", id: "lab-give", disabled: !usable, "data-key": "give", on: { click: () => give(taker) } }, `Give to ${oneLine(taker.name, 18)}`),
    h("button", { type: "button", class: "btn pri", disabled: !usable, "data-key": "use", on: { click: use } }, "Use in a new run"),
  ]);
  const drawTabs = part(tabs, (versions, at, base, next, dirty, sameAs) => [
    versions.length > SHOWN_VERSIONS && h("select", { class: "lab-select", "aria-label": "Older versions", on: { change: (event) => event.target.value && view(Number(event.target.value)) } }, h("option", { value: "" }, "older"), versions.slice(0, -SHOWN_VERSIONS).map((one) => h("option", { value: one.n }, `v${one.n} ${one.title}`))),
    versions.slice(-SHOWN_VERSIONS).map((one) => h("button", { type: "button", class: at === one.n ? "on" : "", "aria-pressed": String(at === one.n), title: one.title, "data-key": `v${one.n}`, on: { click: () => view(one.n) } }, `v${one.n}`, one.title && h("span", { class: "i3 desk" }, ` ${one.title}`))),
    h("button", { type: "button", class: at === null ? "on" : "", "aria-pressed": String(at === null), "data-key": "draft", on: { click: () => view(null) } }, sameAs === null ? [`v${next}`, h("b", {}, "*")] : "Editor"),
    h("span", { class: "sp" }), saved,
  ]);
  const drawTools = part(tools, (looking, base, whole, lines) => looking !== null
    ? [h("span", { class: "i2" }, `v${looking.n}, kept ${when(looking.created)}, `, h("span", { class: "mono", title: looking.sha }, looking.sha.slice(0, 12))), h("span", { class: "sp" }), h("button", { type: "button", class: "btn sm", on: { click: () => goOn(looking) } }, "Go on from here")]
    : [h("button", { type: "button", class: "link", "data-key": "catalogue", on: { click: catalogue.open } }, "Start from the catalogue"),
        h("span", { class: "sp" }),
        base !== null && h("label", { class: "lab-check i2" }, h("input", { type: "checkbox", checked: whole, "data-key": "whole", on: { change: (event) => ((state.whole = event.target.checked), compare(), draw()) } }), ` what v${base} had too`),
        base !== null && lines && h("span", { class: "i3 desk" }, `shaded: new since v${base}`)]);
  const drawChecks = part(checks, (found, ended) => found && [
    check(found.again !== false, found.again === null ? "not scored twice" : found.again ? "same score twice" : "another score the second time", found.again === null),
    check(!found.nan, found.nan ? `NaN for ${count(found.nan, "answer")}` : "no NaN"),
    check(!found.failed, found.failed ? `fails on ${found.failed} of ${found.scored}` : "no errors"),
    check(!found.constant, found.low === null ? "no values" : found.constant ? `always ${plain(found.low)}` : `${plain(found.low)} to ${plain(found.high)}`, found.low === null),
    check(!ended && found.milliseconds < 100, `${time(found.milliseconds)} each`),
  ]);
  const drawComplaint = part(complaint, (found) => found && [
    h("span", {}, found.text), found.line && [" ", h("button", { type: "button", class: "link", "data-key": "complaintline", on: { click: () => toLine(found.line) } }, `Go to line ${found.line}`)],
  ]);
  const drawAgainst = part(againstBox, (value, options) => options.length > 1 && [
    h("label", { class: "i3" }, "beside ", select(value, options, (chosen) => ((state.against = chosen === "run" ? null : chosen === "none" ? undefined : Number(chosen)), pickedAgainst()))),
  ]);
  const drawPrinted = part(printed, (text) => text && h("details", { open: true }, h("summary", {}, "Printed", h("span", { class: "i3" }, text.length >= 2000 ? " (the end of it)" : "")), h("pre", {}, text)));

  function select(value, options, onPick) {
    const box = h("select", { class: "lab-select", "aria-label": "Compare with", "data-key": "against", on: { change: () => onPick(box.value) } }, options.map(([name, words]) => h("option", { value: name }, words)));
    box.value = value;
    return box;
  }

  const label = () => (state.looking ? `v${state.looking.n}` : desk.same ? `v${desk.same.n}` : `v${desk.next}*`);
  const fresh = () => state.tried === signature();
  const signature = () => JSON.stringify([written(), source.choice, against()]);
  const written = () => (state.looking ? { code: state.looking.code, parts: state.looking.parts } : desk.written);

  /** What the new reward is compared with: a version's number, or null for the run's own. */
  function against() {
    if (state.against !== undefined) return state.against;
    if (source.choice.kind === "run" && !desk.before) return null;
    const now = state.looking?.n ?? desk.same?.n ?? null;
    const base = desk.before && desk.before.n !== now ? desk.before : desk.versions.findLast(({ n }) => n < (now ?? Infinity));
    return base ? base.n : null;
  }

  function draw() {
    const { looking, result, group, busy } = state;
    const complaintNow = looking ? null : state.note ?? state.problem;
    title.textContent = headline({ label: label(), problem: looking ? null : state.problem, result: fresh() ? result : null, attack: state.attacked === JSON.stringify(written()) ? state.attack : null, busy, stale: Boolean(result) });
    drawActs.update(busy, state.attacking, !looking && !desk.same && !state.problem && desk.code.trim() !== "", desk.next, !state.problem, Boolean(looking || desk.same), taker());
    drawTabs.update(desk.versions.map(({ n, title }) => ({ n, title })), looking?.n ?? null, desk.base, desk.next, saved.textContent, desk.same?.n ?? null);
    drawTools.update(looking && { n: looking.n, created: looking.created, sha: looking.sha, code: looking.code, parts: looking.parts }, desk.before ? desk.base : null, state.whole, !state.whole);
    drawComplaint.update(complaintNow);
    complaint.hidden = !complaintNow;
    weights.update(looking ? looking.parts.map(({ name }) => ({ name, line: 1 })) : state.functions, written().parts, Boolean(looking));
    drawChecks.update(fresh() ? result?.checks : null, fresh() ? result?.ended : null);
    checks.hidden = !checks.childElementCount;
    const options = [...(source.choice.kind === "run" ? [["run", "the run's own reward"]] : [["none", "nothing"]]), ...desk.versions.toReversed().map(({ n, title }) => [String(n), `v${n} ${title}`.trim()])];
    const now = against();
    drawAgainst.update(now === null ? options[0][0] : String(now), options);
    progress.textContent = busy ? state.words : "";
    progress.hidden = !busy;
    root.classList.toggle("lab-stale", Boolean(result) && !fresh() && !busy);
    table.update({ group, range: state.range, label: state.opened?.label ?? label(), oldLabel: state.opened?.old_words ?? "", groups: state.opened?.groups ?? 0, parts: state.opened?.parts ?? [], narrow: isNarrow(), empty: empty() });
    forecast.update({ result, forecast: state.forecast, size: state.size ?? state.opened?.size ?? 8, label: state.opened?.label ?? label(), oldLabel: state.opened?.old_words, chosen: group?.k });
    prefer.update({ result, label: state.opened?.label ?? label(), oldLabel: state.opened?.old_words });
    attacks.update({ attack: state.attack, label: state.attackLabel ?? label(), busy: state.attacking });
    drawPrinted.update(fresh() ? result?.printed ?? "" : "");
  }

  const empty = () => source.choice.kind === "base" ? "Run samples answers of this model and scores them. The first time a worker has to start, which takes some seconds; after that they are kept." : source.choice.kind === "cases" ? "Type a prompt, its gold answer and a completion, then run." : "Opening the recorded answers…";

  // -- what happens ----------------------------------------------------------------------------------------
  function told(how, more) {
    saved.textContent = { typing: "saving…", saved: "saved", refused: "not saved", away: "kept in this browser; the server is away" }[how];
    if (how === "saved" && more) saved.textContent = `saved; the other tab's text is v${more}`;
  }

  function looked({ functions, problem }) {
    state.functions = functions ?? state.functions;
    state.problem = problem;
    if (desk) complain();
  }

  function complain() {
    const found = state.note ?? state.problem;
    const lines = new Map();
    if (found?.line) lines.set(found.line, found.text);
    if (fresh()) for (const sample of state.group?.samples ?? []) for (const { text, line, chosen } of Object.values(sample.reasons)) if (line && !chosen && !lines.has(line)) lines.set(line, text);
    editor.complain(state.looking ? [] : [...lines].map(([line, text]) => ({ line, text })));
    draw();
  }

  function typed(code) {
    if (state.looking) return;
    state.note = null;
    desk.type(code);
    draw();
  }

  function changed() {
    state.note = null;
    draw();
  }

  function compare() {
    editor.compare(state.looking ? null : desk.before?.code ?? null, state.whole);
  }

  function view(number) {
    state.looking = number === null ? null : desk.versions.find(({ n }) => n === number) ?? null;
    state.note = null;
    editor.show(written().code, { frozen: Boolean(state.looking) });
    compare();
    complain();
  }

  async function goOn(version) {
    await desk.replace(version.code, version.parts, version.n, true);
    state.functions = null;
    view(null);
    await desk.flush();
  }

  async function bring(name, anew) {
    try {
      const { code } = await post("/add", { code: anew ? "" : desk.code, name });
      view(null);
      await desk.replace(code, anew ? [] : desk.parts, anew ? null : desk.base, anew);
      editor.show(code);
      compare();
      await desk.flush();
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
      const version = await desk.keep(name || titleOf(state.functions));
      compare();
      draw();
      return version;
    } catch (error) {
      state.note = { text: error.message, line: null };
      complain();
      return null;
    }
  }

  /** The living run that could go on with this reward: the one whose steps are looked at, else the newest. */
  function taker() {
    const alive = desk.runs.filter((run) => run.alive);
    return alive.find(({ id }) => id === source.choice.run) ?? alive[0] ?? null;
  }

  async function give(to) {
    const version = state.looking ?? desk.same ?? (await keep());
    if (!version) return;
    const rewards = version.parts.map(({ name, weight, enabled }) => ({ name: `${version.path}:${name}`, weight, enabled }));
    try {
      await postJson(`runs/${encodeURIComponent(to.id)}/commands`, { command: "set", args: { rewards } });
      note.textContent = `${to.name} goes on with v${version.n} from its next step.`;
    } catch (error) {
      state.note = { text: error.status ? error.message : "Not sent: the server does not answer.", line: null };
    }
    complain();
  }

  async function use() {
    const version = state.looking ?? desk.same ?? (await keep());
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

  /** The answers themselves, before anything is run. */
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
      await stream("/try", { written: written(), on: source.choice, against: against(), size: state.size }, (piece) => take(piece, sent, name), control.signal);
    } catch (error) {
      if (control.signal.aborted) return;
      state.note = { text: error.status ? error.message : "Not connected. What you typed is kept; run it again when the server is back.", line: null };
    }
    if (running !== control) return;
    running = null;
    state.busy = false;
    complain();
  }

  function take(piece, sent, name) {
    if (piece.type === "doing") state.words = piece.words;
    else if (piece.type === "progress") state.words = `${piece.done.toLocaleString("en")} of ${count(piece.total, "answer")} scored`;
    else if (piece.type === "group") {
      Object.assign(state, { opened: { ...piece, label: name }, group: piece.group, range: piece.range, trial: null });
      state.words = `${piece.title}: the first group is scored`;
    } else if (piece.type === "refused") {
      state.note = { text: piece.error, line: piece.line };
      complain();
    } else {
      const k = state.group?.k ?? 0;
      Object.assign(state, { result: piece, opened: { ...piece, label: name }, forecast: piece.forecast, trial: piece.trial, range: piece.range, tried: sent, size: piece.forecast?.size ?? state.size });
      if (piece.ended) state.note = { text: `Stopped after ${count(piece.tried, "group")}: ${piece.ended.text}`, line: piece.ended.line };
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

  let asked = 0;
  async function resize(size) {
    state.size = size;
    draw();
    if (!state.result) return;
    const mine = ++asked;
    const found = await get(`/trials/${state.result.trial}/forecast?size=${size}`).catch(() => null);
    if (mine !== asked || !found) return;
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
      state.note = { text: error.status ? error.message : "Not connected. What you typed is kept.", line: null };
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
    const order = [...desk.versions.map(({ n }) => n), null];
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
  addEventListener("pagehide", () => desk.flush());
  matchMedia("(max-width: 600px)").addEventListener("change", draw);

  told("saved");
  view(null);
  await Promise.all([post("/look", desk.written).then(looked).catch(() => null), peek()]);
  root.dataset.ready = "";
}

const check = (good, words, unknown = false) => h("span", { class: unknown ? "i3" : good ? "" : "crit" }, h("span", { class: unknown ? "i3" : good ? "ok" : "b" }, unknown ? "–" : good ? "✓" : "✗"), ` ${words}`);

const time = (milliseconds) => (!known(milliseconds) ? "–" : milliseconds < 1 ? `${(milliseconds * 1000).toFixed(0)} µs` : milliseconds < 1000 ? `${milliseconds.toFixed(1)} ms` : duration(milliseconds / 1000));

const when = (seconds) => new Date(seconds * 1000).toLocaleString("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

/** A version's name: its functions. */
const titleOf = (functions) => (functions ?? []).map(({ name }) => name).slice(0, 3).join(" + ");
