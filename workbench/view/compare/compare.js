// The Compare page: two or more runs overlaid: curves, the settings that differ, and each run's samples of the same prompt at the
// same step. `/compare?run=a&run=b&prompt=&step=` is the whole state.

import { makeChart } from "../common/chart.js";
import { h, keepingFocus, oneLine, part, show, visible } from "../common/dom.js";
import { mark } from "../common/dots.js";
import { path } from "../common/fetch.js";
import { count, fixed, known, percent, plain, short } from "../common/format.js";
import { listen } from "../common/keys.js";
import { poll } from "../common/poller.js";
import { roundUp } from "../common/scale.js";
import { isOver, pill } from "../common/run_states.js";

const LETTERS = "ABCDEF";
const LOOKS = [
  { colour: "--accent", width: 2 },
  { colour: "--ink", width: 2 },
  { colour: "--ink3", width: 1.8, dash: [7, 3] },
  { colour: "--accent", width: 1.6, dash: [7, 3] },
  { colour: "--ink", width: 1.4, dash: [2, 3] },
  { colour: "--ink3", width: 1.4, dash: [1, 2] },
];
const shortTick = (value) => short(value, value < 0.1 && value > 0 ? 3 : 2).replace(/(\..*?)0+$/, "$1").replace(/\.$/, "");
const CURVES = [
  { title: "Reward", name: "reward", say: short, tick: shortTick },
  { title: "Held-out accuracy", sub: "sampled, at evaluations", check: true, say: percent, tick: percent, top: 1 },
  { title: "Dead groups", sub: "share of all", name: "frac_reward_zero_std", say: percent, tick: percent },
  { title: "Sample length", sub: "tokens, mean", name: "completions/mean_length", say: (value) => fixed(value, 0), tick: plain },
  { title: "Entropy", sub: "nats per token", name: "entropy", say: short, tick: shortTick },
  { title: "KL to the reference", sub: "nats per token", name: "kl", say: (value) => short(value, known(value) && value < 0.1 ? 3 : 2), tick: shortTick },
];

export async function mount(element, { fetchJson, navigate }) {
  element.classList.add("wb", "wb-reader");
  const query = new URLSearchParams(location.search);
  const runs = [...new Set(query.getAll("run"))];
  let step = /^\d{1,9}$/.test(query.get("step") ?? "") ? Number(query.get("step")) : null;
  let prompt = query.get("prompt");
  let data = null;
  let round = 0;

  const lost = h("div", { class: "lost", role: "status", hidden: true });
  const head = h("div", { class: "cmphead" });
  const charts = CURVES.map((curve) => ({ curve, chart: makeChart({ title: curve.title, sync: "wb-compare", onPick: (at) => move({ step: at }) }) }));
  const settings = h("section", { class: "panel cmpsettings", "aria-label": "What differs" });
  const bar = h("div", { class: "cmpbar" });
  const sides = h("div", { class: "cmpsides" });
  const samples = h("section", { class: "panel cmpanswers", "aria-label": "The same prompt" }, bar, sides);
  const body = h("div", { class: "cmpbody", hidden: true }, h("div", { class: "cmpgrid" }, h("div", { class: "cmpcharts" }, charts.map(({ chart }) => chart.element)), settings), samples);
  const problem = h("p", { class: "missing", role: "status", hidden: true });
  show(element, lost, head, problem, body);

  const headPart = part(head, (all, different, changes, now) => [
    h("h1", {}, headline(all, different, changes)),
    h("div", { class: "cmpruns" }, all.map((run, i) => h("div", { class: "cmprun", "data-run": run.id },
      h("i", { class: "cmpline", style: { "border-top": `${LOOKS[i].width}px ${LOOKS[i].dash ? "dashed" : "solid"} var(${LOOKS[i].colour})` } }), h("b", {}, LETTERS[i]),
      h("a", { class: "link", href: `/?run=${encodeURIComponent(run.id)}`, "data-key": `run-${run.id}` }, oneLine(run.name || run.id, 48)),
      h("span", { class: "note" }, pill(run.status, now).words),
      run.parent && h("span", { class: "note" }, forkWords(run.parent, all)),
      all.length > 2 && h("button", { type: "button", class: "link quiet i3", "aria-label": `Leave out ${run.id}`, on: { click: () => navigate(address(runs.filter((one) => one !== run.id))) } }, "×")))),
  ]);

  const settingsPart = part(settings, (all, different, changes) => [
    h("div", { class: "ph" }, h("h2", {}, different.length ? `${count(different.length, "setting")} ${different.length === 1 ? "differs" : "differ"}` : parted(changes) ? "The same settings at the start" : "The same settings"), h("span", { class: "note" }, different.length || parted(changes) ? "" : "and so the same run, but for chance on the device")),
    different.length > 0 && h("div", { class: "sibscroll", tabindex: 0, role: "region", "aria-label": "Table of settings" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), all.map((_, i) => h("th", { scope: "col", class: "r" }, LETTERS[i])))),
      h("tbody", {}, different.map(({ name, label, values }) => h("tr", {}, h("td", { title: name }, oneLine(label, 40)), values.map((value) => h("td", { class: "r mono cmpvalue" }, setting(value)))))))),
    changes.some((list) => list.length) && h("div", { class: "cmpchanges" }, h("h3", {}, "Changed during the run"),
      changes.flatMap((list, i) => list.map((change) => h("p", { class: "note" }, h("b", {}, LETTERS[i]), ` step ${change.step}: ${oneLine(change.text, 90)}`)))),
  ]);

  const address = (list, at = step, which = prompt) => `/compare?${new URLSearchParams([...list.map((run) => ["run", run]), ...(which ? [["prompt", which]] : []), ...(at === null ? [] : [["step", at]])])}`;

  function move(change) {
    if ("step" in change) step = change.step;
    if ("prompt" in change) prompt = change.prompt;
    history.replaceState(history.state, "", address(runs));
    drawCharts();
    drawSamples();
  }

  function drawCharts() {
    const rules = data.runs.flatMap((run, i) => (run.parent?.step && data.runs.some((one) => one.id === run.parent.run) ? [{ x: run.parent.step, text: `${LETTERS[i]} forks` }] : []));
    for (const { curve, chart } of charts) chart.update(picture(curve, data.runs, rules), step);
  }

  async function drawSamples() {
    const mine = ++round;
    const list = data.prompts;
    prompt ??= list[0]?.prompt_id ?? null;
    drawBar();
    if (prompt === null) return show(sides, h("p", { class: "note cmpnone" }, "These runs have no prompt in common. Runs of one task share their watched held-out prompts where seed and data agree."));
    const found = await fetchJson(path(["compare", prompt], { run: runs, step })).catch((error) => ({ error }));
    if (mine !== round) return;
    if (found.error) return show(sides, h("p", { class: "note cmpnone" }, found.error.status ? found.error.message : "No response from the server yet."));
    keepingFocus(sides, () => show(sides, found.runs.map((run, i) => side(run, i, data.runs[i], prompt))));
  }

  function drawBar() {
    const list = data.prompts;
    const at = list.findIndex((one) => one.prompt_id === prompt);
    const here = list[at];
    const steps = evaluatedSteps(data.runs);
    const last = steps.at(-1) ?? 0;
    const shown = step ?? last;
    const to = (by) => move({ step: by > 0 ? steps.find((one) => one > shown) ?? last : steps.findLast((one) => one < shown) ?? steps[0] ?? 0 });
    const walk = (by) => move({ prompt: list[Math.max(0, Math.min(list.length - 1, at + by))].prompt_id });
    const options = (watched) => list.filter((one) => one.watched === watched).map((one) => h("option", { value: one.prompt_id, selected: one.prompt_id === prompt }, oneLine(one.question, 60)));
    keepingFocus(bar, () => show(bar,
      h("h2", {}, "The same prompt"),
      list.length > 0 && h("select", { class: "ifnumber cmpselect", "aria-label": "Prompt", "data-key": "prompt", on: { change: (event) => move({ prompt: event.target.value }) } },
        list.some((one) => one.watched) && h("optgroup", { label: "Watched, held out" }, options(true)), list.some((one) => !one.watched) && h("optgroup", { label: "Training prompts of all" }, options(false))),
      here && h("span", { class: "i2" }, here.answer === null ? "" : ["reference answer ", h("b", { class: "mono" }, oneLine(here.answer, 60))]),
      h("span", { class: "sp" }),
      steps.length > 0 && h("span", { class: "step", role: "group", "aria-label": "Step" },
        h("button", { type: "button", "aria-label": "Step back", disabled: shown <= steps[0], "data-key": "back", on: { click: () => to(-1) } }, "‹"),
        h("b", {}, `after step ${shown}`),
        h("button", { type: "button", "aria-label": "Step on", disabled: shown >= last, "data-key": "on", on: { click: () => to(1) } }, "›"))));
    bar.walk = list.length ? walk : null;
    bar.turn = steps.length ? to : null;
  }

  if (runs.length < 2) {
    problem.hidden = false;
    return show(problem, "Compare takes two runs or more. ", h("a", { class: "link", href: "/runs" }, "Tick them in Runs"));
  }
  const poller = poll(async () => {
    try {
      data = await fetchJson(path(["compare"], { run: runs }));
    } catch (error) {
      if (!error.status) throw error;
      problem.hidden = false;
      body.hidden = true;
      problem.textContent = error.message;
      return 10;
    }
    problem.hidden = true;
    body.hidden = false;
    headPart.update(data.runs, data.differences, data.changes, Date.now() / 1000);
    settingsPart.update(data.runs, data.differences, data.changes);
    drawCharts();
    await drawSamples();
    return data.runs.every((run) => isOver(run.status.state)) ? Infinity : 5;
  }, (seconds) => {
    lost.hidden = seconds === null;
    lost.textContent = seconds === null ? "" : `Not connected. Trying again in ${seconds} s.`;
  });
  listen({ j: () => bar.walk?.(1), k: () => bar.walk?.(-1), h: () => bar.turn?.(-1), l: () => bar.turn?.(1), Escape: () => navigate("/runs") });
  return { stop: poller.stop };
}

/** Whether settings were changed differently during the runs. */
const parted = (changes) => changes.some((list) => JSON.stringify(list) !== JSON.stringify(changes[0]));

/** "KL coefficient β: 0 against 0.04. Held-out 84 % against 71 %." */
function headline(all, different, changes) {
  const last = all.map((run) => run.checks.filter((check) => check.mode === "sampled").at(-1)?.metrics["heldout/sampled/accuracy"] ?? null);
  const names = whatDiffers(all, different, changes);
  return last.every(known) ? `${names}. Held-out ${last.map(percent).join(" against ")}.` : `${names}.`;
}

function whatDiffers(all, different, changes) {
  if (different.length === 1) return `${different[0].label}: ${different[0].values.map(setting).join(" against ")}`;
  if (different.length) return `${all.length} runs, ${count(different.length, "different setting")}`;
  if (!parted(changes)) return `${all.length} runs, the same settings`;
  const made = changes.flatMap((list, i) => list.map((change) => ({ ...change, letter: LETTERS[i] })));
  return made.length === 1 ? `${all.length} runs, alike until step ${made[0].step}: ${made[0].letter} ${oneLine(made[0].text, 60)}` : `${all.length} runs with the same start, changed during the run`;
}

const setting = (value) => (typeof value === "number" ? plain(value) : value === null || value === "" ? "none" : oneLine(String(value), 60));

function forkWords({ run, step }, all) {
  const at = all.findIndex((one) => one.id === run);
  return `fork of ${at < 0 ? oneLine(run, 40) : LETTERS[at]}${step ? ` from step ${step}` : ""}`;
}

const accuracyOf = (run) => new Map(run.checks.filter((check) => check.mode === "sampled").map((check) => [check.step, check.metrics["heldout/sampled/accuracy"] ?? null]));

/** Steps at which any of the runs was evaluated; without evaluations, every step of any run. */
function evaluatedSteps(runs) {
  const evaluated = runs.flatMap((run) => [...accuracyOf(run).keys()]);
  const all = evaluated.length ? evaluated : runs.flatMap((run) => run.steps);
  return [...new Set(all)].sort((a, b) => a - b);
}

function picture(curve, runs, rules) {
  const columns = runs.map((run) => (curve.check ? accuracyOf(run) : new Map(run.steps.map((step, i) => [step, run.metrics[curve.name]?.[i] ?? null]))));
  const x = [...new Set(columns.flatMap((column) => [...column.keys()]))].sort((a, b) => a - b);
  const lines = columns.map((column, i) => ({ values: x.map((step) => column.get(step) ?? null), span: true, ...LOOKS[i] }));
  const all = lines.flatMap((line) => line.values).filter(known);
  const [low, high] = [Math.min(0, ...all), curve.top ?? (roundUp(Math.max(0, ...all)) || 1)];
  const at = (values, index) => {
    for (let i = index; i >= 0; i--) if (known(values[i])) return values[i];
    return null;
  };
  return {
    x,
    sub: curve.sub ?? "",
    lines,
    rules,
    points: curve.check ? columns.flatMap((column) => [...column].map(([step, y]) => ({ x: step, y })).filter(({ y }) => known(y))) : [],
    range: [low, high],
    tick: curve.tick,
    ends: (index) => lines.map((line, i) => ({ y: at(line.values, index), text: `${LETTERS[i]} ${curve.say(at(line.values, index))}`, colour: line.colour, bold: i === 0 })),
    words: `${curve.title}: ${lines.map((line, i) => `${LETTERS[i]} ${curve.say(at(line.values, x.length - 1))}`).join(", ")}`,
  };
}

/** One run's samples of the prompt. */
function side({ id, visit, history }, i, run, prompt) {
  const where = visit && (visit.kind === "eval" ? `held-out evaluation after step ${visit.step}` : `training step ${visit.step}`);
  const right = visit && visit.samples.filter((sample) => sample.right).length;
  const judged = visit && visit.samples.every((sample) => sample.right !== null);
  const link = visit && `/?${new URLSearchParams({ run: id, view: "group", step: visit.step, prompt, ...(visit.mode ? { mode: visit.mode } : {}) })}`;
  return h("article", { class: "cmpside", "data-run": id, "aria-label": `Samples of ${LETTERS[i]}` },
    h("div", { class: "cmpsidehead" }, h("b", {}, LETTERS[i]), h("span", { class: "clip" }, oneLine(run.name || id, 40)), h("span", { class: "sp" }), link && h("a", { class: "link nw", href: link, "data-key": `open-${id}` }, "Open the group")),
    visit ? h("p", { class: "note" }, `${where}: `, h("b", {}, judged ? `${right} of ${visit.samples.length} right` : `mean ${fixed(visit.samples.reduce((sum, sample) => sum + (sample.reward ?? 0), 0) / Math.max(1, visit.samples.length))}`), history.length > 1 ? `; over its visits ${history.map((one) => (one.right === null ? fixed(one.reward) : `${one.right}/${one.n}`)).slice(-12).join(" ")}` : "") : h("p", { class: "note" }, "Not sampled up to this step."),
    visit?.samples.map((sample) => h("div", { class: "cmpanswer" },
      h("div", { class: "cmpanswerhead" }, mark(sample), h("span", { class: "mono" }, fixed(sample.reward)), h("span", { class: "i3" }, count(sample.length, "token"))),
      h("pre", { dir: "auto" }, visible(sample.text, 1200)))));
}
