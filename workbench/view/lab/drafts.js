// The draft in the editor and its saved versions. Every change is stored in this browser at once and on the server's disk a moment
// later; after a reload the newer of both is shown.

import { get, post } from "./api.js";

const DELAY = 400;
const RETRY = 4000;
const KEY = "wb-lab-draft";

export async function openDrafts({ onSaved, onLook }) {
  const found = await get();
  let { draft } = found;
  let dirty = false;
  let timer = null;
  let sending = false;
  const local = recall();
  if (local?.dirty && local.code !== draft.code) draft = { ...draft, ...local, revision: local.revision };

  const drafts = {
    ...found,
    get code() {
      return draft.code;
    },
    get base() {
      return draft.base;
    },
    get parts() {
      return draft.parts;
    },
    get written() {
      return { code: draft.code, parts: draft.parts };
    },
    /** The version that the draft was derived from. */
    get before() {
      return drafts.versions.find(({ n }) => n === draft.base) ?? null;
    },
    get next() {
      return (drafts.versions.at(-1)?.n ?? 0) + 1;
    },
    /** The version that the draft equals, or null. */
    get same() {
      return drafts.versions.findLast((version) => version.code === draft.code && sameParts(version.parts, draft.parts)) ?? null;
    },
    type(code) {
      change({ code });
    },
    weigh(parts) {
      change({ parts });
    },
    /** Replace the text. With `keeping` the text before is saved as a version first, unless it is one already. */
    async replace(code, parts, base, keeping) {
      if (keeping && draft.code.trim() && !drafts.same) await drafts.keep("before starting anew").catch(() => null);
      change({ code, parts, base });
    },
    async keep(title = "") {
      await flush();
      const version = await post("/versions", { written: drafts.written, title });
      if (!drafts.versions.some(({ n }) => n === version.n)) drafts.versions.push(version);
      change({ base: version.n });
      return version;
    },
    flush,
  };

  function change(values) {
    draft = { ...draft, ...values };
    dirty = true;
    remember();
    onSaved("typing");
    clearTimeout(timer);
    timer = setTimeout(flush, DELAY);
  }

  async function flush() {
    clearTimeout(timer);
    if (sending || !dirty) return;
    sending = true;
    const sent = draft;
    try {
      const reply = await post("/draft", { written: { code: sent.code, parts: sent.parts }, base: sent.base, revision: sent.revision });
      draft = { ...draft, revision: reply.revision };
      dirty = draft.code !== sent.code || draft.parts !== sent.parts || draft.base !== sent.base;
      if (reply.rescued) drafts.versions = (await get()).versions;
      onSaved(dirty ? "typing" : "saved", reply.rescued);
      onLook(reply);
    } catch (error) {
      onSaved(error.status ? "refused" : "away", error.message);
      if (error.status) onLook({ functions: null, problem: { text: error.message, line: null } });
      else timer = setTimeout(flush, RETRY);
    } finally {
      sending = false;
      remember();
    }
    if (dirty) timer = setTimeout(flush, DELAY);
  }

  function remember() {
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...draft, dirty, place: found.place }));
    } catch {
      // storage full or forbidden: the server's copy remains
    }
  }

  function recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) ?? "null");
      return kept?.place === found.place ? kept : null;
    } catch {
      return null;
    }
  }

  if (local?.dirty) {
    dirty = true;
    flush();
  }
  return drafts;
}

const sameParts = (one, other) => JSON.stringify(one) === JSON.stringify(other);
