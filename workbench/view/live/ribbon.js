// The ribbon: a heat map of the whole run and its slider for the step. A column a step, a cell a group coloured by pass rate, best
// on top. Cells are drawn on canvas; marks, the cursor and the axis are SVG over it. Where steps are narrower than NARROWEST pixels,
// a column is the mean of several.

import { pressing } from "./alarms.js";
import { h, oneLine, s, show } from "../common/dom.js";
import { percent, plain } from "../common/format.js";
import { ticks } from "../common/scale.js";
import { colour, hatch, onTheme } from "../common/theme.js";

const DECILES = 10;
const MANY = 24; // groups; more are drawn as deciles
const NARROWEST = 3; // pixels of a column

/** How many rows the ribbon draws for groups of this number. */
export const rowCount = (groups) => (groups > MANY ? DECILES : groups);

/** Columns of cells, each the rank-wise mean of `per` steps: [[mean, dead] per row, best first] or null where no step is. */
export function bins(ribbon, total, per, rows) {
  const out = [];
  for (let first = 0; first < total; first += per) {
    const columns = [];
    for (let step = first; step < Math.min(total, first + per); step++) if (ribbon.has(step)) columns.push(fitted(ribbon.get(step), rows));
    out.push(columns.length ? columns[0].map((_, row) => merged(columns.map((column) => column[row]))) : null);
  }
  return out;
}

function fitted(cells, rows) {
  if (cells.length === rows) return cells;
  if (cells.length < rows) return [...new Array(rows - cells.length).fill(null), ...cells]; // fewer groups than usual: the worst stay at the bottom
  return Array.from({ length: rows }, (_, row) =>
    merged(cells.slice(Math.floor((row * cells.length) / rows), Math.floor(((row + 1) * cells.length) / rows))));
}

function merged(cells) {
  const there = cells.filter((cell) => cell && cell[0] !== null);
  if (there.length < 2) return there[0] ?? null;
  const mean = there.reduce((sum, cell) => sum + cell[0], 0) / there.length;
  const dead = there.filter((cell) => cell[1]);
  return [mean, dead.length * 2 > there.length ? dead[0][1] : ""];
}

/** The ribbon; `mini` is the small one above the other views. `onPick(step)` is called on click, drag and arrow keys. */
export function makeRibbon({ mini = false, onPick }) {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const over = s("svg", { "aria-hidden": "true" });
  const note = h("output", { class: "ribbonnote", hidden: true });
  const doing = h("span", { class: "doing lab", "aria-hidden": "true" });
  const stage = h("div", { class: "stage", tabindex: 0, role: "slider", "aria-label": "Step", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0 }, canvas, over, doing, note);
  const caption = mini ? null : h("div", { class: "caption lab" });
  const element = h("div", { class: `ribbon ${mini ? "mini" : ""}` }, caption, stage);
  let state = null;
  let shape = null;
  let seen = null;

  function draw() {
    const width = stage.clientWidth;
    if (!state || !width) return;
    const { store, total } = state;
    const groups = Math.max(1, ...[...store.data.ribbon.values()].slice(-50).map((cells) => cells.length), state.groups ?? 1);
    const rows = rowCount(groups);
    const cell = mini ? Math.max(1.5, 24 / rows) : Math.max(3, Math.min(8, Math.floor(80 / rows)));
    const per = Math.ceil(total / Math.max(1, Math.floor(width / NARROWEST)));
    const columns = Math.ceil(total / per);
    shape = { width, total, per, columns, step: width / columns, rows, cell, top: mini ? 12 : 20, height: rows * cell };
    if (caption) show(caption, state.narrow ? null : groups > MANY ? [`${groups} prompts`, h("br"), "a step, in tenths", h("br"), state.graded ? "by mean reward" : "by pass rate"] : [`${groups} prompts`, h("br"), "a step, sorted", h("br"), state.graded ? "by mean reward" : "by pass rate"]);
    cells();
    marks();
    const at = state.step ?? 0;
    stage.setAttribute("aria-valuemax", Math.max(0, state.newest ?? 0));
    stage.setAttribute("aria-valuenow", at);
    stage.setAttribute("aria-valuetext", describe(at));
  }

  function cells() {
    const { width, columns, step, rows, cell, top, height } = shape;
    const ratio = devicePixelRatio || 1;
    const full = height + top + 18;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(full * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(full * ratio);
    }
    stage.style.height = `${full}px`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, full);
    const teal = [0, 1, 2, 3, 4, 5].map((k) => colour(element, `--r${k}`));
    const grey = colour(element, "--line2");
    const empty = colour(element, "--sunken");
    const wrong = hatch(context, colour(element, "--ink3"), 1);
    const gapX = step >= 6 ? 1.5 : step >= 4 ? 1 : 0;
    const gapY = cell >= 3 ? 1 : 0;
    bins(state.store.data.ribbon, shape.total, shape.per, rows).forEach((column, i) => {
      const x = i * step;
      if (!column) {
        context.fillStyle = empty;
        return context.fillRect(x + 0.5, top, Math.max(1, step - gapX), height - gapY);
      }
      column.forEach((value, row) => {
        if (!value) return;
        const [mean, dead] = value;
        context.fillStyle = dead === "wrong" ? wrong : dead ? grey : teal[Math.max(0, Math.min(5, Math.round(mean * 5)))];
        context.fillRect(x + 0.5, top + row * cell, Math.max(1, step - gapX), cell - gapY);
      });
    });
  }

  const left = (step) => Math.floor(step / shape.per) * shape.step;
  const middle = (step) => Math.min(shape.width - 5, left(step) + shape.step / 2);

  function marks() {
    const { width, top, height, step } = shape;
    const { store, newest, step: cursor, total, live, ended } = state;
    over.setAttribute("width", width);
    over.setAttribute("height", height + top + 18);
    const axis = ticks(total - 1, Math.max(2, width / (mini ? 160 : state.narrow ? 75 : 240)));
    // The newest step is labelled on the axis; ticks whose labels it would overlap are left out.
    const rule = newest !== null && !live ? left(newest) + step : null;
    const named = `${state.over ? "last" : "live"} ${newest}`;
    const ends = rule !== null && rule > width - 7 * named.length;
    const touched = (x) => rule !== null && Math.abs(x - (ends ? rule - 3.5 * named.length : rule)) < 3.5 * named.length + 12;
    show(over,
      axis.map((at, i) => !touched(i === axis.length - 1 ? width - 6 : middle(at)) && s("text", { x: i === axis.length - 1 ? width - 1 : Math.max(0, middle(at)), y: top + height + 13,
        "text-anchor": i === axis.length - 1 ? "end" : i === 0 && step < 14 ? "start" : "middle" }, at)),
      evaluationMarks(store.data.evaluations, middle, top, width, mini || state.narrow),
      mini ? null : eventMarks(store.data, middle, top, state.narrow),
      ended && newest !== null && s("line", { x1: left(newest) + step, x2: left(newest) + step, y1: top - 3, y2: top + height, class: "endrule" }),
      newest !== null && newest !== seen && seen !== null && s("rect", { x: left(newest), y: top, width: step, height, class: "arrives" }),
      rule !== null && s("g", { class: "liverule" },
        s("line", { x1: rule, x2: rule, y1: top - 2, y2: top + height + 3 }),
        s("text", { x: ends ? width - 1 : rule, y: top + height + 13, "text-anchor": ends ? "end" : "middle" }, named)),
      cursor !== null && s("rect", { x: left(cursor) - 0.5, y: top - 2.5, width: Math.max(4, step), height: height + 3.5, rx: 2, class: "cursor" }));
    seen = newest;
  }

  function describe(step) {
    const cells = state.store.data.ribbon.get(step);
    if (!cells) return `step ${step}`;
    const known = cells.filter((cell) => cell[0] !== null);
    const mean = known.reduce((sum, cell) => sum + cell[0], 0) / Math.max(1, known.length);
    const dead = cells.filter((cell) => cell[1]).length;
    return `step ${step}: ${state.graded ? `mean ${mean.toFixed(2)}` : `${percent(mean)} right`}${dead ? `, ${dead} of ${cells.length} dead` : ""}`;
  }

  const stepAt = (event) => {
    const x = event.clientX - stage.getBoundingClientRect().left;
    const step = Math.floor(Math.max(0, Math.min(shape.width - 1, x)) / shape.step) * shape.per;
    return Math.max(0, Math.min(state.newest ?? 0, step));
  };
  let dragging = false;
  stage.addEventListener("pointerdown", (event) => {
    if (!shape || state.newest === null || event.button !== 0) return;
    dragging = true;
    stage.setPointerCapture(event.pointerId);
    onPick(stepAt(event));
  });
  stage.addEventListener("pointermove", (event) => {
    if (!shape || state?.newest === null) return;
    const step = stepAt(event);
    if (dragging) onPick(step);
    if (event.pointerType === "touch") return;
    note.hidden = false;
    note.textContent = describe(step);
    const x = Math.max(0, Math.min(shape.width - note.offsetWidth, middle(step) - note.offsetWidth / 2));
    note.style.setProperty("transform", `translateX(${Math.round(x)}px)`);
  });
  const drop = () => ((dragging = false), (note.hidden = true));
  stage.addEventListener("pointerup", () => (dragging = false));
  stage.addEventListener("pointerleave", drop);
  stage.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? state.newest : by ? (state.step ?? 0) + by * shape.per : null;
    if (to === null || state.newest === null) return;
    event.preventDefault();
    onPick(Math.max(0, Math.min(state.newest, to)));
  });
  new ResizeObserver(draw).observe(stage);
  onTheme(draw);

  return {
    element,
    /** Shows what the worker is doing in the column of the next step, where it fits. */
    say(words) {
      if (!shape || !state) return;
      const x = state.newest === null ? 0 : left(state.newest) + shape.step;
      const fits = shape.width - x > words.length * 6 + 20 && state.live;
      doing.textContent = fits ? words : "";
      doing.style.setProperty("transform", `translate(${Math.round(x + 10)}px, ${Math.round(shape.top + shape.height / 2 - 8)}px)`);
    },
    /** `next`: see `ribbonState` in live.js; `ended`: the run failed, so a rule marks its last step. */
    update(next) {
      state = next;
      draw();
    },
  };
}

const diamond = (x, y, size = 4, extra = "") => s("path", { d: `M${x} ${y - size}l${size} ${size}-${size} ${size}-${size}-${size}z`, class: `check ${extra}` });

const pencil = (x, y) => `M${x} ${y}l1 -3.5 6.5 -6.5 2.5 2.5 -6.5 6.5z`;

function evaluationMarks(evaluations, middle, top, width, quiet) {
  const sampled = evaluations.filter((one) => one.mode === "sampled" || !evaluations.some((other) => other.step === one.step && other.mode === "sampled"));
  let free = -Infinity;
  return sampled.map((evaluation, i) => {
    const x = middle(evaluation.step);
    const words = `${i === 0 ? "held-out " : ""}${percent(evaluation.accuracy)}`;
    const fits = !quiet && x > free;
    if (fits) free = x + 14 + words.length * 6;
    return s("g", {}, diamond(x, top - 8), fits && s("text", x > width - 14 - words.length * 6 ? { x: x - 8, y: top - 4, "text-anchor": "end", class: "t2" } : { x: x + 8, y: top - 4, class: "t2" }, words));
  });
}

/** Live settings that were changed: Map of step to words, "beta 0 → 0.04". */
export function settingsChanged(events) {
  const found = new Map();
  for (const { kind, step, data } of events) {
    if (kind !== "setting_changed") continue;
    const words = Object.entries(data).map(([name, change]) => `${name} ${figure(change?.from)} → ${figure(change?.to)}`);
    found.set(step, [found.get(step), ...words].filter(Boolean).join(", "));
  }
  return found;
}

const figure = (value) => (Array.isArray(value) ? value.map((one) => `${oneLine(one?.name, 30)} × ${one?.enabled === false ? 0 : plain(one?.weight)}`).join(", ") : typeof value === "number" ? plain(value) : oneLine(value, 30));

function eventMarks(data, middle, top, quiet) {
  const flags = [...new Map(pressing(data.alarms).reverse().map((alarm) => [alarm.since ?? alarm.step, alarm])).values()];
  const changes = [...settingsChanged(data.events)];
  const evaluated = data.evaluations.map(({ step }) => middle(step));
  const place = (alarm) => { const x = middle(alarm.since ?? alarm.step ?? 0); return evaluated.includes(x) ? x - 14 : x; };
  // A label is drawn only where it ends before the next mark and does not touch that of an evaluation.
  const fits = (x, words) => !evaluated.some((other) => x - other > 0 && x - other < 60) && ![...evaluated, ...flags.map(place)].some((mark) => mark > x && mark < x + 17 + words.length * 6);
  const beside = (step) => data.evaluations.some((one) => one.step === step) || flags.some((alarm) => alarm.since === step);
  return [
    flags.map((alarm) => {
      const x = place(alarm), words = (alarm.label ?? alarm.name).toLowerCase();
      return s("g", {}, s("path", { d: `M${x - 3} ${top - 1}V${top - 14}h10l-3 3.5 3 3.5h-8`, class: `flag ${alarm.level}` }, s("title", {}, `step ${alarm.since ?? alarm.step}: ${oneLine(alarm.claim, 80)}`)),
        !quiet && fits(x, words) && s("text", { x: x + 11, y: top - 4, class: "t2" }, words));
    }),
    changes.map(([step, words]) => s("path", { d: pencil(middle(step) - (beside(step) ? 16 : 3.5), top - 2), class: "pencil" }, s("title", {}, `step ${step}: ${words}`))),
  ];
}

/** The legend of the ribbon's colours and marks. */
export function legend({ graded, narrow }) {
  const hatched = s("svg", { width: 14, height: 9, class: "swatch" },
    s("path", { d: "M-1 6l7 -7M2 10l10 -10M7 11l8 -8M12 11l4 -4", class: "hatchline" }));
  return h("div", { class: "legend lab" },
    h("span", {}, h("i", { class: "swatch ramp" }), graded ? (narrow ? "low → high reward" : "low → high mean reward") : narrow ? "few → most right" : "few → most of the group right"),
    h("span", {}, h("i", { class: "swatch dead" }), `${narrow ? "" : "dead: "}${graded ? "all the same" : "all right"}`),
    h("span", {}, hatched, narrow ? "all wrong" : "dead: all wrong"),
    h("span", {}, s("svg", { width: 9, height: 9, class: "swatch tight" }, diamond(4.5, 4.5, 4)), narrow ? "held-out" : "held-out evaluation"),
    h("span", {}, s("svg", { width: 11, height: 12, class: "swatch tight" }, s("path", { d: "M1.5 11.5V1h8l-2.5 3 2.5 3h-8", class: "flag warning" })), "alarm"),
    h("span", {}, s("svg", { width: 13, height: 13, class: "swatch tight pen" }, s("path", { d: pencil(1.5, 11.5), class: "pencil" })), narrow ? "changed" : "setting changed"));
}
