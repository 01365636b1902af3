// The hits of a search, loaded page by page, and which of them the cursor is at. Draws nothing.

import { path } from "../common/fetch.js";
import { queryOf } from "../common/search_query.js";

const PAGE = 50;

const same = (hit, { step, prompt, mode, sample }) => hit.step === step && hit.prompt_id === prompt && (hit.mode ?? null) === mode && hit.index === sample;

/** Where a hit is, as a change of the cursor. */
export const placeOf = (hit) => ({ view: "group", step: hit.step, prompt: hit.prompt_id, mode: hit.mode ?? null, sample: hit.index, tok: null });

/** The hits of one run's searches. */
export function makeHits({ fetchJson }, run) {
  let key = null;
  let found = null;
  let more = null;

  const load = (cursor, after) => fetchJson(path(["runs", run, "search"], { ...queryOf(cursor), after, limit: PAGE }));

  return {
    /** {rows, after, ranked} of the cursor's search, loaded once unless `anew`. */
    async load(cursor, anew = false) {
      const wanted = JSON.stringify(queryOf(cursor));
      if (wanted !== key || !found || anew) {
        key = wanted;
        more = null;
        const mine = (found = load(cursor, null).then((page) => ({ rows: page.hits, after: page.after, ranked: page.ranked })));
        mine.catch(() => found === mine && (found = null));
      }
      return found;
    },
    /** The next page, added to the rows that are there. */
    async more(cursor) {
      const all = await this.load(cursor);
      if (all.after === null) return all;
      more ??= load(cursor, all.after).then((page) => {
        all.rows.push(...page.hits);
        all.after = page.after;
        more = null;
        return all;
      });
      return more;
    },
    /** The hit `by` places from the one at the cursor, loading further pages as needed; null at the ends. */
    async neighbour(cursor, by) {
      const all = await this.load(cursor);
      const at = all.rows.findIndex((hit) => same(hit, cursor));
      const to = at < 0 ? 0 : at + by;
      if (to >= all.rows.length && all.after !== null) await this.more(cursor);
      return all.rows[to] ?? null;
    },
    /** {place, count, more}: which hit the cursor is at, 1 for the first, 0 for none. */
    async where(cursor) {
      const all = await this.load(cursor);
      return { place: all.rows.findIndex((hit) => same(hit, cursor)) + 1, count: all.rows.length, more: all.after !== null };
    },
    file: (cursor, format) => path(["runs", run, "search", "file"], { ...queryOf(cursor), format }),
  };
}
