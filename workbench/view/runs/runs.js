// The Runs page: one row per run, from one JSON route, polled every 2 s while a run is active, every 10 s otherwise.

import { h, oneLine, part, s, show } from "../common/dom.js";
import { duration, known, percent, plain } from "../common/format.js";
import { poll } from "../common/poller.js";
import { isBad, isOver, pill } from "../common/run_states.js";

const MAX_COMPARED = 6;

export async function mount(element, { fetchJson, postJson, navigate }) {
  const lost = h("div", { class: "lost", role: "status", hidden: true });
  const note = h("p", { class: "wb-said", role: "status" });
  const body = h("div");
  // A run in the URL is ticked already, so that comparing takes one more tick.
  const ticked = new Set(new URLSearchParams(location.search).getAll("run"));
  const compare = h("button", { type: "button", class: "btn", disabled: true, on: { click: () => navigate(`/compare?${new URLSearchParams([...ticked].map((run) => ["run", run]))}`) } });
  const tick = (id, on) => {
    if (on) ticked.add(id);
    else ticked.delete(id);
    sayCompare();
  };
  const sayCompare = () => {
    compare.disabled = ticked.size < 2 || ticked.size > MAX_COMPARED;
    compare.textContent = ticked.size < 2 ? "Compare: tick two runs" : ticked.size > MAX_COMPARED ? `Compare takes at most ${MAX_COMPARED}` : `Compare ${ticked.size} runs`;
  };
  sayCompare();
  show(element, lost, h("div", { class: "wb-runs-head" }, h("h1", {}, "Runs"), note, h("span", { class: "sp" }), compare, postJson ? h("a", { class: "btn pri", href: "/new" }, "New run") : h("span", { class: "i3" }, "Read-only: look, don't steer")), body);
  const stopping = new Set();

  async function stop(run) {
    stopping.add(run.id);
    try {
      await postJson(`runs/${encodeURIComponent(run.id)}/commands`, { command: "stop" });
      note.textContent = `${title(run)} stops after this step and saves.`;
    } catch (error) {
      stopping.delete(run.id);
      note.textContent = error.message;
    }
    poller.now();
  }

  const table = part(body, (runs) => (runs.length ? list(runs, postJson && stop, stopping, ticked, tick) : empty(postJson)));
  const poller = poll(async () => {
    const { runs, now } = await fetchJson("runs");
    for (const id of ticked) if (!runs.some((run) => run.id === id)) tick(id, false);
    table.update(runs.map((run) => ({ ...run, pill: pill(run, now), ago: ago(run, now) })));
    return runs.some((run) => !isOver(run.state)) ? 2 : 10;
  }, (seconds) => {
    lost.hidden = seconds === null;
    lost.textContent = seconds === null ? "" : `Not connected. Runs go on. Trying again in ${seconds} s.`;
  });
}

const title = (run) => oneLine(run.name || run.id, 60);

const empty = (canStart) => h("div", { class: "panel wb-empty" }, h("p", {}, "No runs here yet. "), canStart && h("a", { class: "btn pri", href: "/new" }, "Start the first one"));

function list(runs, stop, stopping, ticked, tick) {
  const heads = [h("span", { class: "unseen" }, "Compare"), "Run", "State", "Reward", "Held-out accuracy", "Steps", "Time", "Outcome", ""];
  return h("div", { class: "panel wb-runs-panel" }, h("table", {},
    h("thead", {}, h("tr", {}, heads.map((words) => h("th", { scope: "col" }, words)))),
    h("tbody", {}, runs.map((run) => row(run, stop, stopping, ticked, tick)))));
}

function row(run, stop, stopping, ticked, tick) {
  const { words, look } = run.pill;
  const over = isOver(run.state);
  return h("tr", { "data-run": run.id },
    h("td", { class: "wb-run-tick" }, !run.damaged && h("input", { type: "checkbox", checked: ticked.has(run.id), "aria-label": `Compare ${title(run)}`, "data-key": `tick-${run.id}`, on: { change: (event) => tick(run.id, event.target.checked) } })),
    h("td", { class: "wb-run-name" }, h("a", { href: `/?run=${encodeURIComponent(run.id)}`, "data-key": `open-${run.id}` }, title(run)),
      h("span", { class: "i3" }, run.damaged ? "" : [run.model && oneLine(run.model, 40), run.task, known(run.beta) && `β ${plain(run.beta)}`, known(run.learning_rate) && `lr ${plain(run.learning_rate)}`].filter(Boolean).join(" · ")),
      run.parent && h("span", { class: "i3 wb-run-fork" }, "fork of ", h("a", { href: `/?run=${encodeURIComponent(run.parent.run)}&step=${Math.max(0, run.parent.step - 1)}`, "data-key": `parent-${run.id}` }, oneLine(run.parent.run, 40)), run.parent.step ? ` at step ${run.parent.step}` : " from its base model")),
    h("td", { class: "wb-run-state" }, h("span", { class: `live ${look}` }, h("i"), words)),
    h("td", { class: "wb-run-curve" }, spark(run.spark)),
    h("td", { class: "wb-run-check" }, run.heldout.sampled === null ? h("span", { class: "i3" }, "–") : [h("b", {}, percent(run.heldout.sampled)), h("span", { class: "i3" }, run.heldout.greedy === null ? "" : ` greedy ${percent(run.heldout.greedy)}`)]),
    h("td", { class: "wb-run-steps nw" }, run.steps ? `${run.step} of ${run.steps}` : "–"),
    h("td", { class: "wb-run-time nw i2" }, run.ago),
    h("td", { class: "wb-run-verdict" }, oneLine(run.damaged || run.verdict?.sentence || (isBad(run.state) || run.state === "queued" ? run.reason : "") || run.stalled || "", 160)),
    h("td", { class: "wb-run-acts" },
      stop && !over && h("button", { type: "button", class: "btn sm", disabled: stopping.has(run.id) || run.state === "stopping", "data-key": `stop-${run.id}`, on: { click: () => stop(run) } }, run.state === "queued" ? "Cancel" : "Stop and save")));
}

function ago(run, now) {
  if (run.started === null) return "";
  if (run.ended !== null) return `${duration(run.ended - run.started)}, ended ${when(run.ended, now)}`;
  return run.eta === null ? `since ${duration(now - run.started)}` : `${duration(run.eta)} left`;
}

function when(time, now) {
  const minutes = Math.round((now - time) / 60);
  if (minutes < 1) return "just now";
  if (minutes < 90) return `${minutes} min ago`;
  return minutes < 1440 ? `${Math.round(minutes / 60)} h ago` : new Date(time * 1000).toLocaleDateString();
}

/** Mean reward by step, without axes. */
function spark(values) {
  if (values.length < 2) return h("span", { class: "i3" }, "–");
  const low = Math.min(0, ...values);
  const span = Math.max(1, ...values) - low || 1;
  const points = values.map((value, i) => `${1 + (94 * i) / (values.length - 1)},${22 - (20 * (value - low)) / span}`).join(" ");
  const words = `Mean reward from ${values[0].toFixed(2)} to ${values.at(-1).toFixed(2)}`;
  return s("svg", { width: 96, height: 24, class: "wb-spark", role: "img", "aria-label": words }, s("polyline", { points }));
}
