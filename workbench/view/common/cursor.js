// What the reader shows, as one cursor in the URL: `?run=&view=&step=&prompt=&mode=&sample=&tok=&lens=&whatif=&q=&find=`
// No step means live: the newest one, until the user moves. A link restores everything, also after a restart.

export const LENSES = ["push", "advantage", "weight", "delta", "ratio", "mismatch", "kl", "entropy"];
const FIELDS = {
  run: (text) => text || null,
  view: (text) => (["live", "group", "prompt", "search", "try"].includes(text) ? text : "live"),
  step: integer,
  prompt: (text) => text || null,
  mode: (text) => (["sampled", "greedy"].includes(text) ? text : null), // of a held-out evaluation; training has none
  sample: integer,
  tok: integer,
  lens: (text) => (LENSES.includes(text) ? text : "push"),
  q: (text) => text || null, // the searched text; `find` holds the other conditions as a query string (search_query.js)
  find: (text) => text || null,
  whatif: (text) => text.slice(0, 2000), // changed settings as a query string; "" = the drawer is open without changes
};
const SEARCHES = ["search", "group"]; // the views that keep a search
const EMPTY = { run: null, view: "live", step: null, prompt: null, mode: null, sample: null, tok: null, lens: "push", whatif: null, q: null, find: null };

function integer(text) {
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

/** A cursor as plain fields from a query string; unknown or malformed values are ignored. */
export function parse(search) {
  const query = new URLSearchParams(search);
  const cursor = { ...EMPTY };
  for (const [name, read] of Object.entries(FIELDS)) if (query.has(name)) cursor[name] = read(query.get(name)) ?? EMPTY[name];
  return cursor;
}

/** The query string of a cursor; other parameters of the page stay. */
export function format(cursor, search = "") {
  const query = new URLSearchParams(search);
  for (const name of Object.keys(FIELDS)) {
    if (cursor[name] === null || (cursor[name] === EMPTY[name] && name !== "view") || (name === "view" && cursor.view === "live")) query.delete(name);
    else query.set(name, cursor[name]);
  }
  return `?${query}`;
}

/** The page's cursor. `inUrl` false leaves the address alone (a notebook cell has none). */
export function makeCursor(start, { inUrl = true } = {}) {
  let now = { ...EMPTY, ...start };
  const listeners = [];
  return {
    get now() {
      return now;
    },
    onChange: (listener) => listeners.push(listener),
    /** Change some fields. A move to another group resets the chosen sample and token. */
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
