// Where the reader looks: one cursor, one URL. `?run=&view=&step=&prompt=&mode=&sample=&tok=&lens=&whatif=&q=&find=`
// No step means LIVE: glued to the newest one until somebody moves. Links restore everything, also after a restart.

export const LENSES = ["push", "advantage", "weight", "delta", "ratio", "mismatch", "kl", "entropy"];
const FIELDS = {
  run: (text) => text || null,
  view: (text) => (["live", "group", "prompt", "search", "try"].includes(text) ? text : "live"),
  step: whole,
  prompt: (text) => text || null,
  mode: (text) => (["sampled", "greedy"].includes(text) ? text : null), // of a held-out check; training has none
  sample: whole,
  tok: whole,
  lens: (text) => (LENSES.includes(text) ? text : "push"),
  q: (text) => text || null, // the text that is searched, and the other conditions as a query string (hits.js)
  find: (text) => text || null,
  whatif: (text) => text.slice(0, 2000), // the what-if question, "" = the drawer is open and nothing is asked
};
const SEARCHES = ["search", "group"]; // the views to which a search belongs
const EMPTY = { run: null, view: "live", step: null, prompt: null, mode: null, sample: null, tok: null, lens: "push", whatif: null, q: null, find: null };

function whole(text) {
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

/** A cursor as plain fields from a query string; what is unknown or malformed is as if it were not there. */
export function parse(search) {
  const query = new URLSearchParams(search);
  const cursor = { ...EMPTY };
  for (const [name, read] of Object.entries(FIELDS)) if (query.has(name)) cursor[name] = read(query.get(name)) ?? EMPTY[name];
  return cursor;
}

/** The query string of a cursor, other parameters of the page kept. */
export function format(cursor, search = "") {
  const query = new URLSearchParams(search);
  for (const name of Object.keys(FIELDS)) {
    if (cursor[name] === null || (cursor[name] === EMPTY[name] && name !== "view") || (name === "view" && cursor.view === "live")) query.delete(name);
    else query.set(name, cursor[name]);
  }
  return `?${query}`;
}

/** The page's cursor. `inUrl` false keeps it to itself (a notebook cell owns no address bar). */
export function makeCursor(start, { inUrl = true } = {}) {
  let now = { ...EMPTY, ...start };
  const listeners = [];
  return {
    get now() {
      return now;
    },
    onChange: (listener) => listeners.push(listener),
    /** Change some fields. A move to another group forgets the sample and token that were chosen in the last one. */
    move(change) {
      const elsewhere = ["step", "prompt", "mode"].some((name) => name in change && change[name] !== now[name]);
      const leaves = "view" in change && !SEARCHES.includes(change.view);
      const next = { ...now, ...(elsewhere ? { sample: null, tok: null } : {}), ...(leaves ? { q: null, find: null } : {}), ...change };
      if (Object.keys(next).every((name) => next[name] === now[name])) return;
      const before = now;
      now = next;
      if (inUrl) history.replaceState(history.state, "", format(now, location.search) + location.hash);
      for (const listener of listeners) listener(now, before);
    },
    link: () => new URL(format(now, inUrl ? location.search : ""), location.href).href,
  };
}
