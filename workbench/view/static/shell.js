// What stands around the views: the strip with the run's name and state, the thin bar when the server is away, the row of
// keys, the help sheet, and on phones the bar at the bottom.

import { h, oneLine, part, show } from "./dom.js";
import { duration, known, plain } from "./format.js";
import { isOver, pill } from "./states.js";

const UNDO_SECONDS = 4;

/** The bar on top of everything when nobody answers. */
export function makeLostBar() {
  const element = h("div", { class: "lost", role: "status", hidden: true });
  return {
    element,
    update(seconds) {
      element.hidden = seconds === null;
      element.textContent = seconds === null ? "" : `Not connected. The run goes on. Trying again in ${seconds} s.`;
    },
  };
}

/**
 * Commands to the run. Pause and continue act at once; stop waits a few seconds in which it can be undone, and goes out
 * at once when the page is closed. `onChange()` when the line beside the buttons changed, `onSent()` when a command left.
 */
export function makeCommands({ postJson, run, onChange, onSent }) {
  let note = null;
  let stopping = null;

  const say = (words, undo = null) => {
    note = words === null ? null : { words, undo };
    onChange();
  };

  async function send(command, args = {}, words = null) {
    try {
      await postJson(`runs/${encodeURIComponent(run)}/commands`, { command, args });
      say(words);
      onSent();
    } catch (error) {
      say(error.status ? error.message : "Not sent: the server does not answer.");
    }
  }

  function stop() {
    if (stopping) return;
    let left = UNDO_SECONDS;
    const tell = () => say(`Stops and saves in ${left} s.`, undo);
    const timer = setInterval(() => (--left > 0 ? tell() : go()), 1000);
    const go = () => {
      end();
      send("stop", {}, "Stops after this step and saves.");
    };
    const end = () => {
      clearInterval(timer);
      removeEventListener("pagehide", go);
      stopping = null;
    };
    const undo = () => {
      end();
      say(null);
    };
    addEventListener("pagehide", go);
    stopping = undo;
    tell();
  }

  return {
    can: Boolean(postJson),
    get note() {
      return note;
    },
    send,
    stop,
    pause: () => send("pause", {}, "Pauses after this step."),
    resume: () => send("resume", {}, "Goes on."),
    clear: () => note && !note.undo && say(null),
  };
}

function buttons(commands, state) {
  if (!commands.can) return null;
  const { note } = commands;
  const act = (words, click, attributes = {}) => h("button", { type: "button", class: "btn", "data-key": words, on: { click }, ...attributes }, words);
  return [
    note && h("span", { class: "note", role: "status" }, note.words, note.undo && [" ", h("button", { type: "button", class: "link", "data-key": "undo", on: { click: note.undo } }, "Undo")]),
    ["running", "starting"].includes(state) && act("Pause", commands.pause),
    state === "paused" && act("Continue", commands.resume, { class: "btn pri" }),
    ["running", "starting", "paused", "queued"].includes(state) && act(state === "queued" ? "Cancel" : "Stop and save", commands.stop),
  ];
}

/** The run strip. In Live it carries the facts and the buttons, elsewhere the small ribbon. */
export function makeStrip({ commands, ribbon, onLive }) {
  const name = h("span", { class: "runname" });
  const where = h("span", { class: "where" });
  const facts = h("span", { class: "facts" });
  const acts = h("span", { class: "runacts" });
  const element = h("section", { class: "run", "aria-label": "Run" }, name, where, facts, h("span", { class: "sp" }), acts, ribbon.element);

  const statePart = part(where, (words, look, parked, newest, over) => [
    parked === null || over === "bad"
      ? h("span", { class: `live ${look}`, role: "status" }, h("i"), words)
      : null,
    parked !== null && h("span", { class: "live parked" }, h("i"), `Parked at step ${parked}`),
    parked !== null && newest !== null &&
      h("button", { type: "button", class: "link nw", "data-key": "golive", on: { click: onLive } },
        over === "no" ? h("span", { class: "desk" }, `Running at step ${newest}, go live →`) : h("span", { class: "desk" }, `${words} at step ${newest}, go to the end →`),
        h("span", { class: "mob" }, over === "no" ? `Live: ${newest} →` : `Last: ${newest} →`)),
  ]);
  const factsPart = part(facts, (done, total, pace, eta, setup) => [
    done !== null && h("span", { class: "kv" }, h("b", {}, done), ` of ${total} steps`),
    pace && h("span", { class: "kv" }, h("b", {}, pace), " a step"),
    eta && h("span", { class: "kv" }, h("b", {}, eta), " left"),
    setup && h("span", { class: "kv setup desk" }, setup.map((fact, i) => [i ? " · " : "", fact.map(([text, bold]) => (bold ? h("b", {}, text) : text))])),
  ]);

  return {
    element,
    update({ store, header, cursor, step }) {
      const { status, now } = store.data;
      name.textContent = oneLine(header.name || header.id, 60);
      if (!status) return;
      const { words, look } = pill(status, now);
      const bad = look === "bad";
      const parked = cursor.step === null ? null : step;
      statePart.update(words.replace(/ at step \d+$/, bad || parked === null ? "$&" : ""), look, parked, store.newest, bad ? "bad" : isOver(status.state) ? "yes" : "no");
      const live = cursor.view === "live";
      const over = isOver(status.state);
      element.classList.toggle("withribbon", !live);
      ribbon.element.hidden = live;
      factsPart.update(
        live && store.newest !== null ? store.newest + 1 : null,
        status.steps,
        live && known(status.seconds_per_step) ? duration(status.seconds_per_step) : "",
        live && !over && store.newest !== null && known(status.eta) ? duration(status.eta) : "",
        live && parked === null ? setup(header) : null,
      );
      show(acts, live && buttons(commands, status.state));
    },
  };
}

/** What the run is, one list of [text, bold] a fact: embedded · 16 prompts × 12 answers · β 0 · ... */
function setup({ model, prompts_per_step, num_generations, live_settings, config, seed }) {
  const now = { ...config, num_generations, ...Object.fromEntries(live_settings.map(({ name, value }) => [name, value])) };
  return [
    [[oneLine(model.name, 40), true]],
    [[prompts_per_step, true], [" prompts × ", false], [now.num_generations, true], [" answers", false]],
    [["β ", false], [plain(now.beta), true]],
    [["lr ", false], [plain(now.learning_rate), true]],
    [["T ", false], [plain(now.temperature), true]],
    [["seed ", false], [seed, true]],
  ];
}

/** The bar at the bottom of a phone. */
export function makeBottomBar({ commands, onAlarms, onStep, onAll }) {
  const element = h("nav", { class: "bar", "aria-label": "Actions" });
  const button = (words, click, attributes) => h("button", { type: "button", class: "btn", "data-key": `bar-${words}`, on: { click }, ...attributes }, words);
  return {
    element,
    update({ store, cursor, groupSize, newest, step }) {
      const { status, alarms } = store.data;
      if (!status) return;
      const loud = alarms.filter((alarm) => alarm.level !== "info");
      const turns = [button("‹ Step", () => onStep(-1), { disabled: step === 0 }), button("Step ›", () => onStep(1), { disabled: step === newest })];
      show(element, cursor.view === "live"
        ? [
            commands.can && ["running", "starting"].includes(status.state) && button("Pause", commands.pause),
            commands.can && status.state === "paused" && button("Continue", commands.resume),
            commands.can && !isOver(status.state) && button("Stop and save", commands.stop),
            alarms.length > 0 && h("button", { type: "button", class: "btn", on: { click: onAlarms } }, h("span", { class: `badge ${loud.length ? loud[0].level : "info"}` }, loud.length ? "!" : "i"), `${loud.length || alarms.length} ${loud.length ? (loud.length === 1 ? "alarm" : "alarms") : "notes"}`),
          ]
        : cursor.view === "search" ? []
        : cursor.view === "group" ? [turns[0], button(groupSize ? `All ${groupSize}` : "All", onAll), turns[1]] : turns);
      element.hidden = !element.childElementCount;
    },
  };
}

const KEYS = {
  live: [["j k", "group"], ["enter", "open group"], ["h l", "step"], ["space", "pause the view"], ["p", "prompt over time"], ["w", "what if"], ["y", "copy link"]],
  group: [["1 … 9", "pick a sample"], ["t", "next colour"], ["d", "compare two"], ["f", "forks"], ["h l", "step"], ["j k", "prompt"], ["p", "over time"], ["w", "what if"], ["esc", "back"], ["y", "copy link"]],
  search: [["/", "type a text"], ["j k", "hit"], ["enter", "open it"], ["n N", "next, previous hit in the group view"], ["esc", "back"], ["y", "copy link"]],
  prompt: [["j k", "prompt"], ["h l", "visit"], ["enter", "open group"], ["esc", "back"], ["y", "copy link"]],
};

/** The row of keys under a view, with what was just done at its right. */
export function makeKeyBar() {
  const list = h("span", { class: "keylist" });
  const said = h("span", { class: "said", role: "status" });
  const element = h("div", { class: "keys" }, list, h("span", { class: "sp" }), said);
  let timer = null;
  const rest = "Every underlined word explains itself";
  return {
    element,
    update: (view, hits = false) => show(list, [...(hits ? [["n N", "next, previous hit"]] : []), ...KEYS[view]].map(([key, words]) => h("span", {}, h("kbd", {}, key), " ", words))) && (said.textContent ||= rest),
    say(words) {
      clearTimeout(timer);
      said.textContent = words;
      timer = setTimeout(() => (said.textContent = rest), 3000);
    },
  };
}

const HELP = [
  ["j  k", "next, previous group"],
  ["h  l", "step back, step on; past the newest is live"],
  ["enter", "open the group"],
  ["esc", "back"],
  ["1 … 9", "pick a sample of the group"],
  ["d", "compare the picked sample with its nearest opposite"],
  ["f", "the group as a tree: where its answers part"],
  ["t", "next colouring of the tokens"],
  ["← →", "walk along the tokens of a card"],
  ["p", "this prompt over time"],
  ["w", "what if: other settings asked of every recorded step"],
  ["space", "pause the view: park at this step, or go live again"],
  ["y", "copy a link to exactly this"],
  ["?", "this sheet"],
];

/** The sheet of keys. */
export function makeHelp(search) {
  const rows = search ? [...HELP.slice(0, -1), ["/", "search the samples"], ["n  N", "next, previous hit of the search"], HELP.at(-1)] : HELP;
  const element = h("dialog", { class: "sheet", "aria-label": "Keys" },
    h("h2", {}, "Keys"),
    h("dl", {}, rows.map(([key, words]) => [h("dt", {}, key.split(/\s{2}/).map((one) => [h("kbd", {}, one), " "])), h("dd", {}, words)])),
    h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
  return { element, open: () => element.showModal(), get isOpen() { return element.open; } };
}
