// The strip with the run's name, state, facts and buttons; the bar for a lost connection; and on phones the bar at the bottom.

import { pressing } from "../live/alarms.js";
import { h, oneLine, part, show } from "../common/dom.js";
import { count, duration, known, plain } from "../common/format.js";
import { isOver, pill } from "../common/run_states.js";

/** The bar on top of the page while the server cannot be reached. */
export function makeLostBar() {
  const element = h("div", { class: "lost", role: "status", hidden: true });
  return {
    element,
    update(seconds) {
      element.hidden = seconds === null;
      element.textContent = seconds === null ? "" : `Not connected. The run continues. Trying again in ${seconds} s.`;
    },
  };
}

function buttons({ commands, liveSettings, fork }, state, step) {
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
    ["running", "paused"].includes(state) && act("Change…", () => liveSettings.open(), { title: "Change settings while it runs." }),
    step !== null && h("a", { class: "btn", "data-key": "fork", href: fork(step), title: `Start a new run from the last checkpoint at or before step ${step}.` }, "Fork from here"),
  ];
}

/** The strip. On Live it carries the facts and the buttons, elsewhere the small ribbon. */
export function makeStrip({ commands, liveSettings, fork, ribbon, onLive }) {
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
  const setting = (text, name) => h("button", { type: "button", class: "link quiet b set", "data-key": `set-${name}`, title: "Change it while the run goes on.", on: { click: () => liveSettings.open(name) } }, text);
  const factsPart = part(facts, (done, total, pace, eta, setup, live) => [
    done !== null && h("span", { class: "kv" }, h("b", {}, done), ` of ${total} steps`),
    pace && h("span", { class: "kv" }, h("b", {}, pace), " a step"),
    eta && h("span", { class: "kv" }, h("b", {}, eta), " left"),
    setup && h("span", { class: "kv setup desk" }, setup.map((fact, i) => h("span", { class: fact.aside ?? "" }, i ? " · " : "", fact.map(([text, name]) => (!name ? text : name !== true && live ? setting(text, name) : h("b", {}, text)))))),
  ]);

  // Redrawn only when it changes, so that a click ends on the button it began on.
  const actsPart = part(acts, (live, state, step) => live && buttons({ commands, liveSettings, fork }, state, step));

  return {
    element,
    update({ store, header, cursor, step }) {
      const { status, now } = store.data;
      commands.readReplies(store.data);
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

/** The settings in force, one list of [text, is a value or the name of a live setting] a fact: β 0 · lr 0.001 · 16 prompts × 12 samples · ... */
function setup({ model, prompts_per_step, num_generations, live_settings, config, seed }, events) {
  const now = { ...config, num_generations, ...Object.fromEntries(live_settings.map(({ name, value }) => [name, value])) };
  for (const { kind, data } of events) if (kind === "setting_changed") for (const [name, change] of Object.entries(data)) if (change && "to" in change) now[name] = change.to;
  const aside = (fact, name) => Object.assign(fact, { aside: name }); // left out first where space is short
  return [
    [["β ", false], [plain(now.beta), "beta"]],
    [["lr ", false], [plain(now.learning_rate), "learning_rate"]],
    [["T ", false], [plain(now.temperature), "temperature"]],
    aside([[prompts_per_step, true], [" prompts × ", false], [now.num_generations, "num_generations"], [" samples", false]], "aside2"),
    aside([["seed ", false], [seed, true]], "aside"),
    aside([[oneLine(model.name, 40), true]], "aside"),
  ];
}

/** The bar at the bottom of a phone. */
export function makeBottomBar({ commands, liveSettings, fork, onAlarms, onStep, onAll }) {
  const element = h("nav", { class: "bar", "aria-label": "Actions" });
  const button = (words, click, attributes) => h("button", { type: "button", class: "btn", "data-key": `bar-${words}`, on: { click }, ...attributes }, words);
  const more = h("dialog", { class: "sheet", "aria-label": "More" });
  const then = (act) => () => (more.close(), act());

  /** What the bar has no room for. */
  function openMore(state, step) {
    show(more, h("div", { class: "more" },
      ["running", "paused"].includes(state) && [button("Snapshot", then(commands.snapshot)), button("Change…", then(() => liveSettings.open()))],
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
      const shown = alarms.filter((alarm) => !alarm.muted);
      const urgent = pressing(shown);
      const turns = [button("‹ Step", () => onStep(-1), { disabled: step === 0 }), button("Step ›", () => onStep(1), { disabled: step === newest })];
      show(element, cursor.view === "live"
        ? [
            commands.can && ["running", "starting"].includes(status.state) && button("Pause", commands.pause),
            commands.can && status.state === "paused" && button("Continue", commands.resume),
            commands.can && !isOver(status.state) && button(status.state === "queued" ? "Cancel" : "Stop", commands.stop, { "aria-label": status.state === "queued" ? "Cancel" : "Stop and save" }),
            shown.length > 0 && h("button", { type: "button", class: "btn", on: { click: onAlarms } }, h("span", { class: `badge ${urgent.length ? urgent[0].level : "info"}` }, urgent.length ? "!" : "i"), urgent.length ? count(urgent.length, "alarm") : count(shown.length, "note")),
            commands.can && step !== null && button("More…", () => openMore(status.state, step), { "aria-haspopup": "dialog" }),
          ]
        : ["search", "try"].includes(cursor.view) ? []
        : cursor.view === "group" ? [turns[0], button(groupSize ? `All ${groupSize}` : "All", onAll), turns[1]] : turns);
      element.hidden = !element.childElementCount;
    },
  };
}
