// Sends commands to the run and shows what became of them.

import { capital } from "../common/format.js";
import { isOver } from "../common/run_states.js";

const UNDO_SECONDS = 4;
const READ_SECONDS = 8; // then a note goes: it lies over the ribbon

/**
 * Commands to the run. Pause and continue are sent at once; stop waits a few seconds in which it can be undone, and is sent
 * when the page is closed. `note` is the line beside the buttons: what was sent, then the worker's reply. `onChange()` when it
 * changed, `onSent()` when a command was sent.
 */
export function makeCommands({ postJson, run, onChange, onSent }) {
  let note = null;
  let stopping = null;
  let alive = true;
  let fading = null;
  const waiting = new Map(); // commands without a reply, by id
  const to = (what) => `runs/${encodeURIComponent(run)}/${what}`;

  const say = (words, undo = null, bad = false) => {
    note = words === null ? null : { words, undo, bad };
    fade();
    onChange();
  };

  // A note goes by itself, unless it is an error or its command still waits for a reply.
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
      say(error.status ? error.message : "Not sent: the server does not respond.", null, true);
    }
  }

  function stop() {
    if (stopping) return;
    let left = UNDO_SECONDS;
    const countDown = () => say(`Stops and saves in ${left} s.`, undo);
    const timer = setInterval(() => (--left > 0 ? countDown() : go()), 1000);
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
    countDown();
  }

  return {
    can: Boolean(postJson),
    /** Whether a worker is there to take commands. */
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
    resume: () => send("resume", {}, "Continues."),
    snapshot: () => send("checkpoint", {}, "Saves a checkpoint after this step."),
    /** Problems with these settings, a sentence each; {} for none. */
    problems: (args) => postJson(to("commands"), { command: "set", args, check: true }).then(({ problems }) => problems, (error) => (Object.keys(error.problems ?? {}).length ? error.problems : { "": error.message })),
    async mute(alarm, muted) {
      await postJson(to("mutes"), { alarm, muted }).catch((error) => say(error.message, null, true));
      onSent();
    },
    /** Looks for replies among the events of the run. */
    readReplies({ events, status }) {
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
