// What the reader knows of one run: the header, everything that deltas have brought so far, and the few steps and groups
// that were looked at lately. Draws nothing.

import { path } from "../common/fetch.js";

const KEPT_STEPS = 32;
const KEPT_GROUPS = 24;

const SIDES = { ".": "", r: "right", w: "wrong", t: "tied" }; // why a group is dead, by the letter a column carries

const EMPTY = () => ({
  cursor: null,
  now: null,
  status: null,
  verdict: null,
  steps: [],
  metrics: {},
  parts: {},
  checks: [],
  ribbon: new Map(),
  events: [],
  alarms: [],
  thinned: 1,
});

/** Answers by path, the least lately used forgotten first; a refusal is not remembered. */
function remembering(fetchJson, limit) {
  const known = new Map();
  return {
    get(key) {
      const answer = known.get(key) ?? fetchJson(key);
      known.delete(key);
      known.set(key, answer);
      if (known.size > limit) known.delete(known.keys().next().value);
      answer.catch(() => known.get(key) === answer && known.delete(key));
      return answer;
    },
    clear: () => known.clear(),
  };
}

/** The store of run `run`. `data` is replaced by nothing and grows by `refresh()`. */
export function makeStore({ fetchJson, postJson }, run) {
  const data = EMPTY();
  let version = 0;
  const steps = remembering(fetchJson, KEPT_STEPS);
  const groups = remembering(fetchJson, KEPT_GROUPS);
  const once = remembering(fetchJson, 8);
  const kindOf = (mode) => (mode ? { kind: "eval", mode } : {});

  function merge(delta) {
    if (delta.reset) {
      Object.assign(data, EMPTY());
      steps.clear();
      groups.clear();
    }
    const before = data.steps.length;
    if (delta.reset || delta.steps.length || delta.checks.length || delta.ribbon.length || delta.events.length || delta.alarms) version++;
    const { cursor, now, status, verdict } = delta;
    Object.assign(data, { cursor, now, status, verdict: verdict ?? data.verdict });
    data.steps.push(...delta.steps);
    grow(data.metrics, delta.metrics, before, delta.steps.length);
    grow(data.parts, delta.metric_parts ?? {}, before, delta.steps.length);
    data.checks.push(...delta.checks.map(check).filter(({ accuracy }) => typeof accuracy === "number"));
    for (const column of delta.ribbon) data.ribbon.set(column.step, column.values.map((value, i) => [value, SIDES[column.dead[i]]]));
    data.events.push(...delta.events);
    if (delta.alarms) data.alarms = delta.alarms;
    if (delta.thinned) data.thinned = delta.thinned;
  }

  return {
    run,
    data,
    header: () => once.get(path(["runs", run])),
    glossary: () => once.get("glossary"),
    /** Ask for what is new. Resolves to whether anything was. */
    async refresh() {
      const delta = await fetchJson(path(["runs", run, "delta"], { since: data.cursor }));
      merge(delta);
      return delta;
    },
    step: (step, mode = null) => steps.get(path(["runs", run, "steps", step], kindOf(mode))),
    group: (step, k, mode = null) =>
      groups.get(path(["runs", run, "steps", step, "groups", k], { ...kindOf(mode), tokens: 1 })),
    prompt: (id) => fetchJson(path(["runs", run, "prompts", id])),
    promptOf: (other, id) => fetchJson(path(["runs", other, "prompts", id])),
    runs: () => fetchJson("runs").then((answer) => answer.runs),
    searchChoices: () => once.get(path(["runs", run, "search", "choices"])),
    /** The lines of one of its rewards, as they were in force at a step. */
    code: (name, step) => once.get(path(["runs", run, "rewards", name], { step })),
    /** What every recorded step would have asked for with `sets`, a list of "name=value". */
    whatif: (sets, step) => fetchJson(path(["runs", run, "whatif"], { set: sets, step })),
    /** Begin to score the recorded answers with a reward that the run never had; the dashboard's server runs it. */
    score: (reward) => postJson(`${path(["runs", run, "whatif", "score"])}`, { reward }),
    whatifTokens: (sets, after) => fetchJson(path(["runs", run, "whatif", "tokens"], { set: sets, after })),
    waiting: async () => (await fetchJson(path(["runs", run, "waiting"]))).waiting,
    branches: (step, k, mode = null) => fetchJson(path(["runs", run, "steps", step, "groups", k, "branches"], kindOf(mode))),
    askChoices: () => once.get(path(["runs", run, "ask", "choices"])),
    log: (lines) => fetchJson(path(["runs", run, "log"], { lines })),
    /** Counts up whenever something was recorded; a mere change of phase leaves it. */
    get version() {
      return version;
    },
    get newest() {
      return data.steps.length ? data.steps[data.steps.length - 1] : null;
    },
    /** The value of a metric at a step, or null. */
    at(name, step) {
      const index = step === null ? -1 : indexOf(data.steps, step);
      return index < 0 ? null : (data.metrics[name]?.[index] ?? null);
    },
  };
}

// A held-out check: how many of the problems were right, and the margin of that figure.
function check({ step, mode, n, metrics }) {
  const of = (name) => metrics[`heldout/${mode}/${name}`] ?? null;
  return { step, mode, n: n ?? of("problems"), accuracy: of("accuracy"), low: of("accuracy_low"), high: of("accuracy_high") };
}

// A metric that appears late has nulls before it; one that is missing from a delta has nulls there.
function grow(columns, added, before, count) {
  for (const name of Object.keys(added)) columns[name] ??= new Array(before).fill(null);
  for (const [name, column] of Object.entries(columns)) column.push(...(added[name] ?? new Array(count).fill(null)));
}

function indexOf(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] === value) return middle;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
