// What a search found, page after page, and which of it is being looked at. Draws nothing.

import { path } from "../common/fetch.js";

const PAGE = 50;

/** A search as the address keeps it: the text as `q`, all else as one query string in `find`. */
export const asked = ({ q, find }) => ({ ...Object.fromEntries(new URLSearchParams(find ?? "")), ...(q ? { text: q } : {}) });

/** The same as fields of the cursor; what is empty is left out. */
export function fields(values) {
  const { text, ...rest } = values;
  const query = new URLSearchParams(Object.entries(rest).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return { q: text || null, find: query.toString() || null };
}

/** Whether a cursor carries a search. */
export const searching = ({ q, find }) => q !== null || find !== null;

const same = (hit, { step, prompt, mode, sample }) => hit.step === step && hit.prompt_id === prompt && (hit.mode ?? null) === mode && hit.index === sample;

/** Where a hit is, as a change of the cursor. */
export const placeOf = (hit) => ({ view: "group", step: hit.step, prompt: hit.prompt_id, mode: hit.mode ?? null, sample: hit.index, tok: null });

/** The hits of one run's searches. */
export function makeHits({ fetchJson }, run) {
  let key = null;
  let found = null;
  let more = null;

  const ask = (cursor, after) => fetchJson(path(["runs", run, "search"], { ...asked(cursor), after, limit: PAGE }));

  return {
    /** {rows, after, ranked} of the cursor's search; asked once, unless `anew`. */
    async load(cursor, anew = false) {
      const wanted = JSON.stringify(asked(cursor));
      if (wanted !== key || !found || anew) {
        key = wanted;
        more = null;
        const mine = (found = ask(cursor, null).then((page) => ({ rows: page.hits, after: page.after, ranked: page.ranked })));
        mine.catch(() => found === mine && (found = null));
      }
      return found;
    },
    /** The next page, added to the rows that are there. */
    async more(cursor) {
      const all = await this.load(cursor);
      if (all.after === null) return all;
      more ??= ask(cursor, all.after).then((page) => {
        all.rows.push(...page.hits);
        all.after = page.after;
        more = null;
        return all;
      });
      return more;
    },
    /** The hit `by` places from the one at the cursor, further pages fetched where they are needed; null at the ends. */
    async beside(cursor, by) {
      const all = await this.load(cursor);
      const at = all.rows.findIndex((hit) => same(hit, cursor));
      const to = at < 0 ? 0 : at + by;
      if (to >= all.rows.length && all.after !== null) await this.more(cursor);
      return all.rows[to] ?? null;
    },
    /** {place, count, more}: which of the hits the cursor is at, 1 for the first, 0 for none of them. */
    async where(cursor) {
      const all = await this.load(cursor);
      return { place: all.rows.findIndex((hit) => same(hit, cursor)) + 1, count: all.rows.length, more: all.after !== null };
    },
    file: (cursor, format) => path(["runs", run, "search", "file"], { ...asked(cursor), format }),
  };
}
