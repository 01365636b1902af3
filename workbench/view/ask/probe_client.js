// A question to a run's model that takes a while: put once, looked after until the answer is there.

import { path } from "../common/fetch.js";

const LOOK = 400; // ms between two looks

/** `ask("branch", body, onWords)` resolves to the answer, or throws a sentence; `onWords` hears what the worker is at. */
export function makeProbeClient({ fetchJson, postJson }, run) {
  if (!postJson) return null;
  return async function ask(kind, body, onWords = () => {}) {
    const put = await postJson(path(["runs", run, "ask", kind]), body);
    onWords("Asked…", put.model);
    for (;;) {
      await new Promise((rest) => setTimeout(rest, LOOK));
      const told = await fetchJson(path(["runs", run, "asked", put.folder, put.id]));
      if (told.failed) throw Object.assign(new Error(told.words), { status: 409 });
      if (told.result) return { ...told.result, model: put.model };
      onWords(told.words, put.model);
    }
  };
}
