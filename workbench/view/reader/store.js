// The data of one run: its header, everything that deltas have brought so far, and the steps and groups that were used last. Draws
// nothing.

import { path } from "../common/fetch.js";

const KEPT_STEPS = 32;
const KEPT_GROUPS = 24;

const SIDES = { ".": "", r: "right", w: "wrong", t: "tied" }; // why a group is dead, by its letter in a ribbon column

const EMPTY = () => ({
  cursor: null,
  now: null,
  status: null,
  verdict: null,
  steps: [],
  metrics: {},
  parts: {},
  evaluations: [],
  ribbon: new Map(),
  events: [],
  alarms: [],
  thinned: 1,
});

/** A least-recently-used cache of responses by path; errors are not cached. */
function cached(fetchJson, limit) {
  const responses = new Map();
  return {
    get(key) {
      const response = responses.get(key) ?? fetchJson(key);
      responses.delete(key);
      responses.set(key, response);
      if (responses.size > limit) responses.delete(responses.keys().next().value);
      response.catch(() => responses.get(key) === response && responses.delete(key));
      return response;
    },
    clear: () => responses.clear(),
  };
}

/** The store of run `run`. `refresh()` adds what is new to `data`. */
export function makeStore({ fetchJson, postJson }, run) {
  const data = EMPTY();
  let version = 0;
  const steps = cached(fetchJson, KEPT_STEPS);
  const groups = cached(fetchJson, KEPT_GROUPS);
  const once = cached(fetchJson, 8);
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
    data.evaluations.push(...delta.checks.map(evaluation).filter(({ accuracy }) => typeof accuracy === "number"));
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
    /** Loads what is new. Resolves to the delta. */
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
    runs: () => fetchJson("runs").then(({ runs }) => runs),
    searchChoices: () => once.get(path(["runs", run, "search", "choices"])),
    /** The code of one of its rewards, as it was in force at a step. */
    code: (name, step) => once.get(path(["runs", run, "rewards", name], { step })),
    /** Every recorded step recomputed with `sets`, a list of "name=value"; for `step` also the advantages of its samples. */
    whatif: (sets, step) => fetchJson(path(["runs", run, "whatif"], { set: sets, step })),
    /** Starts to score the recorded samples with a reward that the run never had; the dashboard's server runs it. */
    score: (reward) => postJson(`${path(["runs", run, "whatif", "score"])}`, { reward }),
    whatifTokens: (sets, after) => fetchJson(path(["runs", run, "whatif", "tokens"], { set: sets, after })),
    waiting: async () => (await fetchJson(path(["runs", run, "waiting"]))).waiting,
    branches: (step, k, mode = null) => fetchJson(path(["runs", run, "steps", step, "groups", k, "branches"], kindOf(mode))),
    askChoices: () => once.get(path(["runs", run, "ask", "choices"])),
    log: (lines) => fetchJson(path(["runs", run, "log"], { lines })),
    /** Counts up whenever something was recorded; a change of phase alone does not count. */
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

// A held-out evaluation: its accuracy with the confidence interval, and the number of problems.
function evaluation({ step, mode, n, metrics }) {
  const of = (name) => metrics[`heldout/${mode}/${name}`] ?? null;
  return { step, mode, n: n ?? of("problems"), accuracy: of("accuracy"), low: of("accuracy_low"), high: of("accuracy_high") };
}

// Appends columns. A metric that appears late gets nulls before it; one that is missing from a delta gets nulls there.
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
