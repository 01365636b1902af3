// Probes of a run's model: sends one and polls until the worker's reply is there.

import { path } from "../common/fetch.js";

const POLL = 400; // ms

/** A function `ask(kind, body, onProgress)` that resolves to the reply of a probe or throws its error; null without a server. */
export function makeProbeClient({ fetchJson, postJson }, run) {
  if (!postJson) return null;
  return async function ask(kind, body, onProgress = () => {}) {
    const sent = await postJson(path(["runs", run, "ask", kind]), body);
    onProgress("Sent…", sent.model);
    for (;;) {
      await new Promise((rest) => setTimeout(rest, POLL));
      const reply = await fetchJson(path(["runs", run, "asked", sent.folder, sent.id]));
      if (reply.failed) throw Object.assign(new Error(reply.words), { status: 409 });
      if (reply.result) return { ...reply.result, model: sent.model };
      onProgress(reply.words, sent.model);
    }
  };
}
