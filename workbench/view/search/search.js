// The Search view: conditions on the left, hits on the right. Every change is in the address at once.

import { h, keepingFocus, oneLine, part, show, visible } from "../common/dom.js";
import { mark } from "../common/dots.js";
import { count, fixed, known, listed, signed } from "../common/format.js";
import { takeLatest } from "../common/latest.js";
import { cursorFields, queryOf } from "../common/search_query.js";
import { placeOf } from "./hits.js";

const PAUSE = 250; // ms without a key before the search is sent
const SORTS = { newest: "newest first", oldest: "oldest first", best: "highest reward first", worst: "lowest reward first", longest: "longest first", shortest: "shortest first", up: "largest A first", down: "smallest A first", share: "largest share of the gradient first" };
const ANY = ["", "any"];

/** `go(change)` moves the cursor, `link(change)` is the address of such a move. */
export function makeSearch({ store, hits, header, go, link }) {
  const form = h("form", { class: "panel findform", role: "search", "aria-label": "Find samples" });
  const headline = h("h1", {});
  const facts = h("p", { class: "i2" });
  const tools = h("div", { class: "findtools" });
  const list = h("ol", { class: "hits" });
  const foot = h("div", { class: "findfoot" });
  const results = h("section", { class: "panel findings", "aria-label": "Hits" }, tools, list, foot);
  const fold = h("details", { class: "findfold" }, h("summary", { class: "btn" }, "Filters"), form);
  const element = h("div", { class: "view viewsearch" }, h("div", { class: "verdict" }, headline, facts), h("div", { class: "finding" }, fold, results));
  const follow = takeLatest(list);
  let choices = null;
  let timer = null;
  let shown = null; // {all, cursor}
  let chosen = 0;
  let last = { q: null, find: null };

  const text = h("input", { type: "search", name: "text", id: "wb-search", placeholder: "a word, a sum, a tag", "data-key": "find-text", autocomplete: "off", spellcheck: "false", maxlength: 500 });
  const field = (words, control, note = null) => h("label", {}, h("span", { class: "lab" }, words), control, note);
  const range = (words, name, attributes) => h("fieldset", {}, h("legend", { class: "lab" }, words),
    ["min", "max"].map((end) => h("input", { type: "number", name: `${name}_${end}`, "aria-label": `${words}, ${end === "min" ? "at least" : "at most"}`, placeholder: end === "min" ? "from" : "to", "data-key": `find-${name}_${end}`, ...attributes })));
  const choice = (name, options) => h("select", { name, "data-key": `find-${name}` }, options.map(([value, words]) => h("option", { value }, words)));

  function draw() {
    const rewards = choices?.rewards ?? [];
    const pairs = rewards.flatMap((a, i) => rewards.slice(i + 1).map((b) => [`${a}|${b}`, `${oneLine(a, 30)} and ${oneLine(b, 30)} disagree`]));
    show(form,
      field("Text in the sample or the question", text),
      h("label", {}, h("span", { class: "lab" }, "Marker words, any of"), h("input", { name: "words", maxlength: 300, placeholder: "wait check", "data-key": "find-words", autocomplete: "off", spellcheck: "false" }),
        choices && h("button", { type: "button", class: "link note", "data-key": "find-r1", title: choices.words.join(" "), on: { click: () => ((form.elements.words.value = choices.words.join(" ")), changed(0)) } }, "R1’s reflective words")),
      range("Reward", "reward", { step: "any" }),
      range("Length, tokens", "length", { min: 0, step: 1 }),
      range("Step", "step", { min: 0, step: 1 }),
      h("div", { class: "pair" },
        field("Advantage", choice("advantage", [ANY, ["up", "above 0"], ["down", "below 0"], ["zero", "0"]])),
        field("Ended", choice("finish", [ANY, ["stop", "by itself"], ["length", "cut off"]]))),
      h("div", { class: "pair" },
        field("Correct", choice("right", [ANY, ["true", "right"], ["false", "wrong"]])),
        field("From", choice("kind", [ANY, ["train", "training"], ["eval", "held-out evaluations"]]))),
      pairs.length > 0 && field("Rewards that disagree", choice("disagree", [["", "any"], ...pairs])),
      field("A reward that failed", choice("failed", [["", "any"], ...rewards.map((name) => [name, oneLine(name, 40)])])),
      h("button", { type: "reset", class: "btn", "data-key": "find-reset" }, "Clear"));
  }

  const values = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));

  function changed(pause) {
    clearTimeout(timer);
    timer = setTimeout(() => submit(queryOf(last).sort), pause);
  }

  // The values of the fields become the search.
  function submit(sort = "newest") {
    clearTimeout(timer);
    const { style, prompt } = queryOf(last); // set by links only; they have no field
    const next = cursorFields({ style, prompt, ...values(), sort: sort === "newest" ? "" : sort });
    if (next.q !== last.q || next.find !== last.find) chosen = 0;
    go(next);
  }

  form.addEventListener("input", (event) => changed(event.target.tagName === "SELECT" ? 0 : PAUSE));
  form.addEventListener("submit", (event) => (event.preventDefault(), changed(0)));
  form.addEventListener("reset", () => ((last = { q: null, find: null }), changed(0)));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && event.target.tagName === "INPUT") (event.preventDefault(), event.target.blur(), changed(0));
  });

  /** Put the search of the address into the fields, except the one that has the focus. */
  function fill(cursor) {
    const wanted = queryOf(cursor);
    for (const control of form.elements) if (control.name && control !== document.activeElement) control.value = wanted[control.name] ?? "";
  }

  const toolsPart = part(tools, (sort, jsonl, parquet, any) => [
    h("label", { class: "sorting" }, h("span", { class: "lab" }, "Sorted by "), h("select", { "data-key": "find-sort", on: { change: (event) => submit(event.target.value) } },
      Object.entries(SORTS).map(([value, words]) => h("option", { value, selected: value === sort }, words)))),
    h("span", { class: "sp" }),
    any && [h("span", { class: "note desk" }, "Save all hits as"), h("a", { class: "btn sm", href: jsonl, download: "", "data-key": "find-jsonl" }, "JSONL"), h("a", { class: "btn sm", href: parquet, download: "", "data-key": "find-parquet" }, "Parquet")],
  ]);

  function paint() {
    const { all, cursor } = shown;
    const sought = queryOf(cursor);
    headline.textContent = sentence(sought, all);
    facts.hidden = !all.ranked;
    facts.textContent = all.ranked ? `Sorted among the newest ${count(all.ranked, "hit")} of this text. Narrow the search to sort all of them.` : "";
    toolsPart.update(sought.sort ?? "newest", `/wb/api/${hits.file(cursor, "jsonl")}`, `/wb/api/${hits.file(cursor, "parquet")}`, all.rows.length > 0);
    const marked = sought.text ? [sought.text] : (sought.words ?? "").split(/\s+/).filter(Boolean);
    chosen = Math.min(chosen, Math.max(0, all.rows.length - 1));
    show(list, all.rows.map((hit, i) => row(hit, i, marked)));
    show(foot, all.after !== null && h("button", { type: "button", class: "btn", "data-key": "find-more", on: { click: more } }, "Show more"));
  }

  function row(hit, i, marked) {
    const to = { ...placeOf(hit), ...last };
    const from = hit.kind === "eval" ? `evaluation ${hit.step}` : `step ${hit.step}`;
    return h("li", { class: i === chosen ? "on" : "", "data-hit": i },
      h("a", { href: link(to), "data-key": `hit-${hit.id}`, "aria-current": i === chosen ? "true" : null, on: { click: (event) => open(event, i, to) } },
        h("span", { class: "hithead" },
          mark({ ...hit, dead: false }), h("b", { class: "nw" }, from), h("span", { class: "mono hitq" }, oneLine(hit.question ?? "", 60)), h("span", { class: "sp" }),
          h("span", { class: "mono nw" }, known(hit.reward) ? `r ${fixed(hit.reward)}` : "no reward"),
          h("span", { class: `mono nw hita ${hit.advantage > 0 ? "pos" : hit.advantage < 0 ? "neg" : "i3"}` }, known(hit.advantage) ? signed(hit.advantage) : ""),
          h("span", { class: "i3 nw hitlen" }, hit.finish_reason === "length" ? `cut at ${hit.length}` : count(hit.length, "token"))),
        h("span", { class: "hittext mono", dir: "auto" }, excerpt(hit, marked))));
  }

  function open(event, i, to) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    chosen = i;
    go(to);
  }

  async function more() {
    const { cursor } = shown;
    const all = await hits.more(cursor).catch(() => null);
    if (all && shown?.all === all) paint();
  }

  return {
    element,
    async update({ cursor, narrow }) {
      if (!header.search) return show(list, h("li", { class: "missing" }, "This page holds a part of the run only, so there is nothing to search."));
      last = { q: cursor.q, find: cursor.find };
      if (!form.childElementCount) {
        draw();
        fold.open = !narrow;
        store.searchChoices().then((found) => {
          choices = found;
          keepingFocus(form, draw);
          fill(shown?.cursor ?? cursor);
        }, () => null); // without them only the menus of rewards are missing
      }
      fill(cursor);
      try {
        const all = await follow(hits.load(cursor, shown === null));
        if (!all || (shown?.all === all && JSON.stringify(queryOf(shown.cursor)) === JSON.stringify(queryOf(cursor)) && list.childElementCount)) return;
        shown = { all, cursor };
        paint();
      } catch (error) {
        shown = null;
        headline.textContent = error.status ? error.message : "No response from the server yet.";
        show(list);
      }
    },
    /** Put the cursor into the text field. */
    focus: () => requestAnimationFrame(() => (text.focus(), text.select())),
    /** The last search, for the way back here. */
    get last() {
      return last;
    },
    walk(by) {
      if (!shown?.all.rows.length) return;
      chosen = Math.max(0, Math.min(shown.all.rows.length - 1, chosen + by));
      for (const item of list.children) item.classList.toggle("on", Number(item.dataset.hit) === chosen);
      list.children[chosen]?.scrollIntoView({ block: "nearest" });
      if (chosen >= shown.all.rows.length - 2) more();
    },
    /** Where the chosen hit is, or null. */
    chosen: () => (shown?.all.rows[chosen] ? { ...placeOf(shown.all.rows[chosen]), ...last } : null),
  };
}

/** The headline over the hits. */
function sentence(sought, { rows, after }) {
  const conditions = described(sought);
  const that = conditions.length ? ` that ${listed(conditions.length > 3 ? [...conditions.slice(0, 2), `meet ${conditions.length - 2} more conditions`] : conditions)}` : "";
  if (!rows.length) return that ? `No samples${that}.` : "No samples yet.";
  const order = SORTS[sought.sort ?? "newest"];
  return after !== null ? `The first ${rows.length} samples${that}, ${order}.` : `${count(rows.length, "sample")}${that}${rows.length > 1 ? `, ${order}` : ""}.`;
}

const between = (words, low, high) => (low && high ? `${words} ${low} to ${high}` : low ? `${words} ${low} or more` : `${words} ${high} or less`);

/** The conditions of a search, each as the end of "samples that ...". */
function described(sought) {
  const { text, words, right, finish, advantage, kind, style, prompt, failed, disagree } = sought;
  const range = (words, name) => (sought[`${name}_min`] || sought[`${name}_max`] ? between(words, sought[`${name}_min`], sought[`${name}_max`]) : "");
  return [
    text && `hold “${oneLine(text, 30)}”`,
    words && `use ${oneLine(words.split(/\s+/).filter(Boolean).join(" or "), 40)}`,
    right && (right === "true" ? "are right" : "are wrong"),
    range("earned", "reward"),
    range("have a length of", "length"),
    range("come from step", "step"),
    finish && (finish === "length" ? "were cut off" : "ended by themselves"),
    advantage && { up: "were pushed up", down: "were pushed down", zero: "were not pushed" }[advantage],
    kind && (kind === "eval" ? "come from evaluations" : "come from training"),
    disagree && "divide two rewards",
    failed && `have no ${oneLine(failed, 30)}`,
    style && `are ${oneLine(style, 20)}`,
    prompt && "belong to one prompt",
  ].filter(Boolean);
}

// The text around the first match, matches marked; line breaks as return marks.
function excerpt(hit, marked) {
  const shown = hit.text.replace(/\r?\n/g, "↵");
  const lower = shown.toLowerCase();
  const parts = [hit.at > 0 ? "…" : ""];
  let from = 0;
  while (marked.length) {
    const places = marked.map((word) => [lower.indexOf(word.toLowerCase().replace(/\r?\n/g, "↵"), from), word]).filter(([place]) => place >= 0).sort((a, b) => a[0] - b[0]);
    if (!places.length) break;
    const [place, word] = places[0];
    const end = place + Math.max(1, word.replace(/\r?\n/g, "↵").length);
    parts.push(visible(shown.slice(from, place)), h("mark", {}, visible(shown.slice(place, end))));
    from = end;
  }
  parts.push(visible(shown.slice(from)), hit.at + hit.text.length < hit.characters ? "…" : "");
  return parts;
}

/** The bar above a group that was opened from a search: which hit it is, previous and next hit, the way back. */
export function makeHitBar({ hits, go }) {
  const element = h("div", { class: "hitbar", role: "status", hidden: true });
  const bar = part(element, (words, first, last) => [
    h("b", {}, words),
    h("button", { type: "button", class: "btn sm", disabled: first, "data-key": "hit-back", on: { click: () => step(-1) } }, "‹ Previous ", h("kbd", { class: "desk" }, "N")),
    h("button", { type: "button", class: "btn sm", disabled: last, "data-key": "hit-on", on: { click: () => step(1) } }, "Next ", h("kbd", { class: "desk" }, "n"), " ›"),
    h("button", { type: "button", class: "link", "data-key": "hit-list", on: { click: () => go({ view: "search" }) } }, "All hits"),
    h("span", { class: "sp" }),
    h("button", { type: "button", class: "btn sm ghost", "data-key": "hit-end", on: { click: () => go({ q: null, find: null }) } }, h("span", { class: "desk" }, "End the search"), h("span", { class: "mob" }, "End")),
  ]);
  let now = null;

  async function step(by) {
    if (!now) return;
    const hit = await hits.neighbour(now, by).catch(() => null);
    if (hit) go(placeOf(hit));
  }

  return {
    element,
    step,
    async update(cursor, on) {
      element.hidden = !on;
      now = on ? cursor : null;
      if (!on) return;
      const where = await hits.where(cursor).catch(() => null);
      if (!where || now !== cursor) return;
      const total = `${where.count}${where.more ? "+" : ""}`;
      bar.update(where.place ? `Hit ${where.place} of ${total}` : `Not among the ${total} hits`, where.place === 1, where.place === where.count && !where.more);
    },
  };
}
