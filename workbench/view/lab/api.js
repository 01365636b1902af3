// The lab's routes. Bodies may be long (a pasted megabyte), so they are sent without `keepalive`, which carries 64 kB at most.

const BASE = "/wb/api/lab";

async function answered(response) {
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const words = typeof body?.error === "string" ? body.error : `The server answered ${response.status}.`;
  throw Object.assign(new Error(words), { status: response.status });
}

const send = (path, value, signal) =>
  fetch(BASE + path, { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value), signal });

export const get = async (path = "") => answered(await fetch(BASE + path, { credentials: "same-origin" }));
export const post = async (path, value, signal) => answered(await send(path, value, signal));

/** Posts, and calls `onPiece` with each line of JSON as soon as it is there. */
export async function stream(path, value, onPiece, signal) {
  const response = await send(path, value, signal);
  if (!response.ok || !response.headers.get("content-type")?.includes("ndjson")) return onPiece(await answered(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value: text, done } = await reader.read();
    if (done) break;
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) onPiece(JSON.parse(line));
  }
}
