// The lab's routes. Bodies may be long (a pasted megabyte), so they are sent without `keepalive`, which carries 64 kB at most.

const BASE = "/wb/api/lab";

async function bodyOf(response) {
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const words = typeof body?.error === "string" ? body.error : `The server responded with status ${response.status}.`;
  throw Object.assign(new Error(words), { status: response.status });
}

const send = (path, value, signal) =>
  fetch(BASE + path, { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value), signal });

export const get = async (path = "") => bodyOf(await fetch(BASE + path, { credentials: "same-origin" }));
export const post = async (path, value, signal) => bodyOf(await send(path, value, signal));

/** Posts, and calls `onMessage` with each line of JSON as soon as it arrives. */
export async function stream(path, value, onMessage, signal) {
  const response = await send(path, value, signal);
  if (!response.ok || !response.headers.get("content-type")?.includes("ndjson")) return onMessage(await answered(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value: text, done } = await reader.read();
    if (done) break;
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) onMessage(JSON.parse(line));
  }
}
