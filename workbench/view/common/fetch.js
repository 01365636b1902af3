// The reader's only door: `fetchJson(path)`, where path is like "runs/a/steps/3". The same modules read from the app's
// routes or from an object that a notebook cell or an exported page carries inside itself.

/** Routes below `base`. A refusal is an Error with `.status` and the server's own sentence; no answer at all has no status. */
export function routes(base = "/wb/api/") {
  const call = async (path, options) => {
    const response = await fetch(base + path, { credentials: "same-origin", ...options });
    const body = await response.json().catch(() => null);
    if (response.ok) return body;
    const words = typeof body?.error === "string" ? body.error : `The server answered ${response.status}.`;
    throw Object.assign(new Error(words), { status: response.status, problems: body?.problems ?? {} });
  };
  return {
    fetchJson: (path) => call(path),
    postJson: (path, value) =>
      call(path, {
        method: "POST",
        keepalive: true,
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(value),
      }),
  };
}

/** Answers that were put into the page: `{"runs/a": {...}, "runs/a/delta": {...}}`. Nothing can be commanded from there. */
export function embedded(answers) {
  return {
    async fetchJson(path) {
      if (Object.hasOwn(answers, path)) return answers[path];
      throw Object.assign(new Error("This page does not hold that part of the run."), { status: 404 });
    },
  };
}

/** "runs/a/delta?since=3" from ["runs", "a", "delta"] and {since: 3}; absent values are left out, a list repeats its name. */
export function path(parts, values = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) for (const one of [value].flat()) if (one !== null && one !== undefined) query.append(name, one);
  const tail = query.toString();
  return parts.map(encodeURIComponent).join("/") + (tail ? `?${tail}` : "");
}
