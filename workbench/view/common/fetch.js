// All data of a page comes through `fetchJson(path)`, where path is like "runs/a/steps/3": from the app's routes, or from an
// object inside a notebook cell or an exported page.

/** Routes below `base`. A refusal throws an Error with `.status` and the server's sentence; without a response there is no status. */
export function routes(base = "/wb/api/") {
  const call = async (path, options) => {
    const response = await fetch(base + path, { credentials: "same-origin", ...options });
    const body = await response.json().catch(() => null);
    if (response.ok) return body;
    const words = typeof body?.error === "string" ? body.error : `The server returned status ${response.status}.`;
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

/** Responses that are part of the page: `{"runs/a": {...}, "runs/a/delta": {...}}`. Commands cannot be sent. */
export function embedded(responses) {
  return {
    async fetchJson(path) {
      if (Object.hasOwn(responses, path)) return responses[path];
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
