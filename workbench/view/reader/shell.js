// What stands around the views: the strip with the run's name and state, the thin bar when the server is away, the row of
// keys, the help sheet, and on phones the bar at the bottom.

import { loud } from "../live/alarms.js";
import { h, oneLine, part, show } from "../common/dom.js";
import { capital, count, duration, known, plain } from "../common/format.js";
import { isOver, pill } from "../common/run_states.js";

const UNDO_SECONDS = 4;
const READ_SECONDS = 8; // then an answer goes: it lies over the ribbon

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
 * at once when the page is closed. What the run answers is said where the wish was said. `onChange()` when the line beside
 * the buttons changed, `onSent()` when a command left.
 */
export function makeCommands({ postJson, run, onChange, onSent }) {
  let note = null;
  let stopping = null;
  let alive = true;
  let fading = null;
  const waiting = new Map();
  const to = (what) => `runs/${encodeURIComponent(run)}/${what}`;

  const say = (words, undo = null, bad = false) => {
    note = words === null ? null : { words, undo, bad };
    fade();
    onChange();
  };

  // What is still awaited stays, and so does what went wrong.
  function fade() {
    clearTimeout(fading);
    if (note && !note.undo && !note.bad) fading = setTimeout(() => waiting.size || say(null), 1000 * READ_SECONDS);
  }

  const send = (command, args = {}, words = null) => post("commands", { command, args }, words);

  async function post(path, value, words) {
    try {
      const { ids = [] } = await postJson(to(path), value);
      for (const id of ids) waiting.set(id, words);
      say(words);
      onSent();
    } catch (error) {
      say(error.status ? error.message : "Not sent: the server does not answer.", null, true);
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
    /** Whether somebody is there to be told. */
    get alive() {
      return alive;
    },
    get note() {
      return note;
    },
    send,
    post,
    stop,
    pause: () => send("pause", {}, "Pauses after this step."),
    resume: () => send("resume", {}, "Goes on."),
    snapshot: () => send("checkpoint", {}, "Saves a checkpoint after this step."),
    /** What is wrong with these settings, a sentence each; {} for nothing. */
    problems: (args) => postJson(to("commands"), { command: "set", args, check: true }).then((answer) => answer.problems, (error) => (Object.keys(error.problems ?? {}).length ? error.problems : { "": error.message })),
    async mute(alarm, muted) {
      await postJson(to("mutes"), { alarm, muted }).catch((error) => say(error.message, null, true));
      onSent();
    },
    /** Look for answers to what was sent. */
    heard({ events, status }) {
      alive = Boolean(status) && !isOver(status.state);
      if (!waiting.size) return;
      for (const { kind, data } of events) {
        if (kind !== "command" || !waiting.has(data.id)) continue;
        waiting.delete(data.id);
        note = { words: data.ok ? capital(`${data.text}.`.replace("..", ".").replaceAll(" -> ", " → ")) : data.text, undo: null, bad: !data.ok };
        fade();
      }
    },
    clear: () => note && !note.undo && say(null),
  };
}

function buttons({ commands, change, fork }, state, step) {
  if (!commands.can) return null;
  const { note } = commands;
  const act = (words, click, attributes = {}, ...more) => h("button", { type: "button", class: "btn", "data-key": words, on: { click }, ...attributes }, words, more);
  const goes = ["running", "starting", "paused"].includes(state);
  return [
    note && h("span", { class: `note ${note.bad ? "bad" : ""}`, role: "status" }, oneLine(note.words, 200), note.undo && [" ", h("button", { type: "button", class: "link", "data-key": "undo", on: { click: note.undo } }, "Undo")]),
    ["running", "starting"].includes(state) && act("Pause", commands.pause),
    state === "paused" && act("Continue", commands.resume, { class: "btn pri" }),
    (goes || state === "queued") && act(state === "queued" ? "Cancel" : "Stop and save", commands.stop),
    ["running", "paused"].includes(state) && act("Snapshot", commands.snapshot, { title: "Save a checkpoint after this step." }),
    ["running", "paused"].includes(state) && act("Change…", () => change.open(), { title: "Change settings while it runs." }),
    step !== null && h("a", { class: "btn", "data-key": "fork", href: fork(step), title: `Start a new run from the last checkpoint at or before step ${step}.` }, "Fork from here"),
  ];
}

/** The run strip. In Live it carries the facts and the buttons, elsewhere the small ribbon. */
export function makeStrip({ commands, change, fork, ribbon, onLive }) {
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
  const setting = (text, name) => h("button", { type: "button", class: "link quiet b set", "data-key": `set-${name}`, title: "Change it while the run goes on.", on: { click: () => change.open(name) } }, text);
  const factsPart = part(facts, (done, total, pace, eta, setup, live) => [
    done !== null && h("span", { class: "kv" }, h("b", {}, done), ` of ${total} steps`),
    pace && h("span", { class: "kv" }, h("b", {}, pace), " a step"),
    eta && h("span", { class: "kv" }, h("b", {}, eta), " left"),
    setup && h("span", { class: "kv setup desk" }, setup.map((fact, i) => h("span", { class: fact.aside ?? "" }, i ? " · " : "", fact.map(([text, name]) => (!name ? text : name !== true && live ? setting(text, name) : h("b", {}, text)))))),
  ]);

  // Redrawn only when it changes: a click must find the button it began on.
  const actsPart = part(acts, (live, state, step) => live && buttons({ commands, change, fork }, state, step));

  return {
    element,
    update({ store, header, cursor, step }) {
      const { status, now } = store.data;
      commands.heard(store.data);
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
        live && parked === null ? setup(header, store.data.events) : null,
        commands.can && ["running", "paused"].includes(status.state),
      );
      actsPart.update(live, status.state, live ? step : null, commands.note?.words, commands.note?.bad);
    },
  };
}

/** What the run is now, one list of [text, is a figure or the name of a live setting] a fact: embedded · 16 prompts × 12 answers · β 0 · ... */
function setup({ model, prompts_per_step, num_generations, live_settings, config, seed }, events) {
  const now = { ...config, num_generations, ...Object.fromEntries(live_settings.map(({ name, value }) => [name, value])) };
  for (const { kind, data } of events) if (kind === "setting_changed") for (const [name, change] of Object.entries(data)) if (change && "to" in change) now[name] = change.to;
  const aside = (fact, name) => Object.assign(fact, { aside: name }); // what goes first where there is little room
  return [
    [["β ", false], [plain(now.beta), "beta"]],
    [["lr ", false], [plain(now.learning_rate), "learning_rate"]],
    [["T ", false], [plain(now.temperature), "temperature"]],
    aside([[prompts_per_step, true], [" prompts × ", false], [now.num_generations, "num_generations"], [" answers", false]], "aside2"),
    aside([["seed ", false], [seed, true]], "aside"),
    aside([[oneLine(model.name, 40), true]], "aside"),
  ];
}

/** The bar at the bottom of a phone. */
export function makeBottomBar({ commands, change, fork, onAlarms, onStep, onAll }) {
  const element = h("nav", { class: "bar", "aria-label": "Actions" });
  const button = (words, click, attributes) => h("button", { type: "button", class: "btn", "data-key": `bar-${words}`, on: { click }, ...attributes }, words);
  const more = h("dialog", { class: "sheet", "aria-label": "More" });
  const then = (act) => () => (more.close(), act());

  /** What the bar has no room for. */
  function openMore(state, step) {
    show(more, h("div", { class: "more" },
      ["running", "paused"].includes(state) && [button("Snapshot", then(commands.snapshot)), button("Change…", then(() => change.open()))],
      step !== null && h("a", { class: "btn", href: fork(step) }, `Fork from step ${step}`)),
      h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
    more.showModal();
  }

  return {
    element,
    sheet: more,
    update({ store, cursor, groupSize, newest, step }) {
      const { status, alarms } = store.data;
      if (!status) return;
      const heard = alarms.filter((alarm) => !alarm.muted);
      const pressing = loud(heard);
      const turns = [button("‹ Step", () => onStep(-1), { disabled: step === 0 }), button("Step ›", () => onStep(1), { disabled: step === newest })];
      show(element, cursor.view === "live"
        ? [
            commands.can && ["running", "starting"].includes(status.state) && button("Pause", commands.pause),
            commands.can && status.state === "paused" && button("Continue", commands.resume),
            commands.can && !isOver(status.state) && button(status.state === "queued" ? "Cancel" : "Stop", commands.stop, { "aria-label": status.state === "queued" ? "Cancel" : "Stop and save" }),
            heard.length > 0 && h("button", { type: "button", class: "btn", on: { click: onAlarms } }, h("span", { class: `badge ${pressing.length ? pressing[0].level : "info"}` }, pressing.length ? "!" : "i"), pressing.length ? count(pressing.length, "alarm") : count(heard.length, "note")),
            commands.can && step !== null && button("More…", () => openMore(status.state, step), { "aria-haspopup": "dialog" }),
          ]
        : ["search", "try"].includes(cursor.view) ? []
        : cursor.view === "group" ? [turns[0], button(groupSize ? `All ${groupSize}` : "All", onAll), turns[1]] : turns);
      element.hidden = !element.childElementCount;
    },
  };
}

const KEYS = {
  people: [["1 … 9", "pick an answer"], ["g x", "good, bad"], ["r", "rank"], ["j k", "prompt"], ["space", "pause the view"]],
  live: [["j k", "group"], ["enter", "open group"], ["h l", "step"], ["space", "pause the view"], ["p", "prompt over time"], ["w", "what if"], ["y", "copy link"]],
  group: [["1 … 9", "pick a sample"], ["t", "next colour"], ["d", "compare two"], ["g x", "good, bad"], ["r", "rank"], ["f", "forks"], ["b", "branch"], ["h l", "step"], ["j k", "prompt"], ["p", "over time"], ["w", "what if"], ["esc", "back"], ["y", "copy link"]],
  search: [["/", "type a text"], ["j k", "hit"], ["enter", "open it"], ["n N", "next, previous hit in the group view"], ["esc", "back"], ["y", "copy link"]],
  try: [["ctrl enter", "ask"], ["esc", "back"], ["y", "copy link"]],
  prompt: [["j k", "prompt"], ["h l", "visit"], ["enter", "open group"], ["esc", "back"], ["y", "copy link"]],
};

const letter = (key) => key.split(/\s/)[0];

/** The row of keys under a view, with what was just done at its right. `idle` are the keys that do nothing on this page. */
export function makeKeyBar(idle = []) {
  const list = h("span", { class: "keylist" });
  const said = h("span", { class: "said", role: "status" });
  const element = h("div", { class: "keys" }, list, h("span", { class: "sp" }), said);
  let timer = null;
  let drawn = "";
  const rest = "Every underlined word explains itself";
  return {
    element,
    update(view, hits = false) {
      if (drawn === `${view} ${hits}`) return;
      drawn = `${view} ${hits}`;
      show(list, [...(hits ? [["n N", "next, previous hit"]] : []), ...KEYS[view].filter(([key]) => !idle.includes(letter(key)))].map(([key, words]) => h("span", {}, h("kbd", {}, key), " ", words)));
      said.textContent ||= rest;
    },
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
  ["b", "continue from the chosen token: what was it worth?"],
  ["g  x", "call the picked sample good, bad; again takes it back"],
  ["r", "rank the group: then press numbers, best first; backspace takes one back"],
  ["t", "next colouring of the tokens"],
  ["← →", "walk along the tokens of a card"],
  ["p", "this prompt over time"],
  ["a", "ask the model something, beside the one it began as"],
  ["w", "what if: other settings asked of every recorded step"],
  ["space", "pause the view: park at this step, or go live again"],
  ["y", "copy a link to exactly this"],
  ["?", "this sheet"],
];

/** The sheet of keys, without those that do nothing on this page. */
export function makeHelp(search, idle = []) {
  const work = HELP.filter(([key]) => !idle.includes(letter(key)));
  const rows = search ? [...work.slice(0, -1), ["/", "search the samples"], ["n  N", "next, previous hit of the search"], work.at(-1)] : work;
  const element = h("dialog", { class: "sheet", "aria-label": "Keys" },
    h("h2", {}, "Keys"),
    h("dl", {}, rows.map(([key, words]) => [h("dt", {}, key.split(/\s{2}/).map((one) => [h("kbd", {}, one), " "])), h("dd", {}, words)])),
    h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
  return { element, open: () => element.showModal(), get isOpen() { return element.open; } };
}
