// A user's ratings of samples: good, bad, or their rank in the group, mostly from the keyboard.
// A group is anything with {step, k, kind, mode, samples: [{index, text, thumb, place}]}: recorded, or waiting to be rated.

import { h } from "./dom.js";

const ORDINALS = { 1: "1st", 2: "2nd", 3: "3rd" };
export const ordinal = (place) => ORDINALS[place % 10 > 3 || (place % 100 > 10 && place % 100 < 14) ? 0 : place % 10]?.replace(/^\d+/, place) ?? `${place}th`;
const known = (value) => value !== null && value !== undefined;

/** The rating of a sample as a chip; null where it has none. */
export function ratingChip({ thumb, place }) {
  if (!known(thumb) && !known(place)) return null;
  return [
    known(thumb) && h("span", { class: `chip rated ${thumb ? "good" : "bad"}` }, thumb ? "good" : "bad"),
    known(place) && h("span", { class: "chip rated" }, ordinal(place)),
  ];
}

/** The ranked samples of a group, best first. */
const ranked = (group) => group.samples.filter((sample) => known(sample.place)).sort((a, b) => a.place - b.place || a.index - b.index);

/**
 * `onChange()` when a rating changed or ranking began or ended; `say(words)` for what went wrong. Without `postJson` ratings
 * are read-only.
 */
export function makeRater({ postJson, run, onChange, say }) {
  let ranking = false;

  async function send(group, change) {
    const { step, k, kind, mode } = group;
    try {
      await postJson(`runs/${encodeURIComponent(run)}/ratings`, { step, k, kind, mode: mode || null, ...change });
      return true;
    } catch (error) {
      say(error.status ? error.message : "Not saved: the server does not respond.");
      return false;
    }
  }

  /** Change ratings at once, send them, and undo the change where the server refuses. Samples with equal text share a rating. */
  async function set(group, name, values) {
    const texts = new Map(Object.entries(values).map(([index, value]) => [group.samples.find((sample) => sample.index === Number(index)).text, value]));
    const touched = group.samples.filter((sample) => texts.has(sample.text));
    const before = touched.map((sample) => sample[name]);
    for (const sample of touched) sample[name] = texts.get(sample.text);
    onChange();
    if (await send(group, { [`${name}s`]: values })) return;
    touched.forEach((sample, i) => (sample[name] = before[i]));
    onChange();
  }

  /** Gives the next rank to a sample that has none. */
  function place(group, index) {
    const chosen = group.samples.find((sample) => sample.index === index);
    if (chosen && !known(chosen.place)) set(group, "place", { [index]: Math.max(0, ...group.samples.map((sample) => sample.place ?? 0)) + 1 });
  }

  return {
    can: Boolean(postJson),
    get ranking() {
      return ranking;
    },
    /** Rate a sample good or bad; the same rating again removes it. */
    thumb(group, index, good) {
      const sample = group?.samples.find((one) => one.index === index);
      if (sample && postJson) set(group, "thumb", { [index]: sample.thumb === good ? null : good });
    },
    place: (group, index) => group && postJson && place(group, index),
    /** Remove the last rank. */
    undo(group) {
      const last = group && ranked(group).at(-1);
      if (last && ranking) set(group, "place", { [last.index]: null });
    },
    toggle() {
      if (!postJson) return;
      ranking = !ranking;
      onChange();
    },
    stop: () => (ranking = false),
  };
}

/** The row of buttons under a group: rate the picked sample, or rank all of them. */
export function ratingRow(rater, group, picked) {
  if (!rater.can) return null;
  const sample = group.samples.find((one) => one.index === picked);
  const button = (words, key, on, click, pressed = null) =>
    h("button", { type: "button", class: `btn sm ${on ? "on" : ""}`, "aria-pressed": pressed === null ? null : String(pressed), "data-key": `rate-${key}`, on: { click } }, words, " ", h("kbd", {}, key));
  const rank = button(rater.ranking ? "Done" : "Rank", "r", rater.ranking, () => rater.toggle(), rater.ranking);
  if (rater.ranking) {
    const order = ranked(group);
    return h("div", { class: "raterow ranking", role: "group", "aria-label": "Rank the samples" },
      h("span", {}, h("b", {}, "Best first: "), "press a sample’s number, or click it."),
      h("span", { class: "places", role: "status" }, order.length ? order.map((one) => h("span", { class: "chip rated" }, `${ordinal(one.place)} #${one.index + 1}`)) : h("span", { class: "note" }, "no rank given yet")),
      h("span", { class: "sp" }), order.length > 0 && h("button", { type: "button", class: "btn sm", "data-key": "rate-undo", on: { click: () => rater.undo(group) } }, "Undo"), rank);
  }
  return h("div", { class: "raterow", role: "group", "aria-label": "Your rating" },
    sample && h("span", {}, "Your rating of ", h("b", {}, `#${sample.index + 1}`)),
    sample && button("Good", "g", sample.thumb === true, () => rater.thumb(group, picked, true), sample.thumb === true),
    sample && button("Bad", "x", sample.thumb === false, () => rater.thumb(group, picked, false), sample.thumb === false),
    h("span", { class: "sp" }), h("span", { class: "note desk" }, "the whole group"), rank);
}
