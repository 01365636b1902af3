// The words for a run's state and phase.

import { oneLine } from "./dom.js";
import { count, duration, known } from "./format.js";

const WORDS = { queued: "Queued", starting: "Starting", running: "Running", paused: "Paused", stopping: "Stopping", finished: "Finished", stopped: "Stopped", failed: "Failed", crashed: "Crashed", interrupted: "Interrupted", damaged: "Damaged" };
const OVER = new Set(["finished", "stopped", "failed", "crashed", "interrupted", "damaged"]);
const BAD = new Set(["failed", "crashed", "damaged"]);

export const isOver = (state) => OVER.has(state);
export const isBad = (state) => BAD.has(state);

/** {words, look} of the state pill: look is a class of wb.css. */
export function pill(status, now) {
  const { state, stalled, step, heartbeat } = status;
  if (stalled && !isOver(state)) return { words: `No heartbeat for ${duration(now - heartbeat)}`, look: "quiet" };
  if (BAD.has(state) || state === "interrupted") return { words: `${WORDS[state]} at step ${step}`, look: BAD.has(state) ? "bad" : "quiet" };
  return { words: WORDS[state] ?? state, look: state === "running" ? "on" : "quiet" };
}

const PHASES = { import: "Starting up", "load model": "Loading the model", prepare: "Preparing prompts and rewards", sample: "Sampling", score: "Scoring samples", rate: "Waiting for your ratings", "check, sampled": "Evaluating held-out problems, sampled", "check, greedy": "Evaluating held-out problems, greedy", update: "Updating the model", record: "Writing the record", checkpoint: "Saving a checkpoint", save: "Saving the final model" };

/** The stages before the first recorded group, each with its phases. */
export const STAGES = [["start", ["import"]], ["load the model", ["load model", "prepare"]], ["evaluate the base model", ["check, sampled", "check, greedy"]], ["sample", ["sample"]], ["score", ["rate", "score"]], ["update", ["update"]], ["record", ["record", "checkpoint", "save"]]];

/** "Sampling 192 samples, 61 done": what the worker is doing now. */
export function phase(status, samples) {
  const { state, phase: name, phase_done: done, phase_total: total } = status;
  if (state === "queued") {
    const [holder, ...others] = status.waits_for ?? [];
    if (!holder) return "Waiting for the device. Another run holds it.";
    return `Waiting for the device: ${oneLine(holder.name, 60)} holds it${others.length ? `, ${count(others.length, "more run")} ${others.length === 1 ? "is" : "are"} ahead` : ""}.`;
  }
  if (state === "paused") return status.reason || "Paused between two steps.";
  if (isOver(state)) return "";
  if (name === "sample") return `Drawing ${count(total || samples, "sample")}${known(done) ? `, ${done} done` : ""}`;
  const words = PHASES[name] ?? (name ? name.charAt(0).toUpperCase() + name.slice(1) : WORDS[state]);
  return known(done) && total ? `${words}, ${done} of ${total}` : words;
}
