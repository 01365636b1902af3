// Around the lab's panels: buttons, tabs of versions, the lines under the editor, printed output. Drawn from plain values.

import { h, oneLine, part } from "../common/dom.js";
import { count, duration, known, plain } from "../common/format.js";

const SHOWN_VERSIONS = 5;

/** The parts, each {element, update(...)}. `on`: the handlers of their buttons. */
export function makeToolbar(on) {
  const acts = part(h("span", { class: "acts" }), (busy, attacking, keepable, next, usable, same, taker) => [
    busy ? h("button", { type: "button", class: "btn", "data-key": "run", on: { click: on.cancel } }, "Stop") : h("button", { type: "button", class: "btn", id: "lab-run", "data-key": "run", on: { click: on.run } }, "Run ", h("kbd", {}, "ctrl ↵")),
    h("button", { type: "button", class: "btn", id: "lab-attack", disabled: attacking, "data-key": "attack", on: { click: on.attack } }, attacking ? "Attacking…" : "Attack it"),
    h("button", { type: "button", class: "btn", disabled: !keepable, "data-key": "keep", on: { click: on.keep } }, same ? "Saved" : `Save v${next}`),
    taker && h("button", { type: "button", class: "btn", id: "lab-give", disabled: !usable, "data-key": "give", on: { click: () => on.give(taker) } }, `Give to ${oneLine(taker.name, 18)}`),
    h("button", { type: "button", class: "btn pri", disabled: !usable, "data-key": "use", on: { click: on.use } }, "Use in a new run"),
  ]);
  const tabs = part(h("div", { class: "tabs", role: "group", "aria-label": "Versions" }), (versions, at, base, next, dirty, sameAs) => [
    versions.length > SHOWN_VERSIONS && h("select", { class: "lab-select", "aria-label": "Older versions", on: { change: (event) => event.target.value && on.view(Number(event.target.value)) } }, h("option", { value: "" }, "older"), versions.slice(0, -SHOWN_VERSIONS).map((one) => h("option", { value: one.n }, `v${one.n} ${one.title}`))),
    versions.slice(-SHOWN_VERSIONS).map((one) => h("button", { type: "button", class: at === one.n ? "on" : "", "aria-pressed": String(at === one.n), title: one.title, "data-key": `v${one.n}`, on: { click: () => on.view(one.n) } }, `v${one.n}`, one.title && h("span", { class: "i3 desk" }, ` ${one.title}`))),
    h("button", { type: "button", class: at === null ? "on" : "", "aria-pressed": String(at === null), "data-key": "draft", on: { click: () => on.view(null) } }, sameAs === null ? [`v${next}`, h("b", {}, "*")] : "Editor"),
    h("span", { class: "sp" }), on.saved,
  ]);
  const tools = part(h("div", { class: "lab-tools" }), (looking, base, whole, lines) => looking !== null
    ? [h("span", { class: "i2" }, `v${looking.n}, saved ${when(looking.created)}, `, h("span", { class: "mono", title: looking.sha }, looking.sha.slice(0, 12))), h("span", { class: "sp" }), h("button", { type: "button", class: "btn sm", on: { click: () => on.goOn(looking) } }, "Go on from here")]
    : [h("button", { type: "button", class: "link", "data-key": "catalogue", on: { click: on.catalogue } }, "Start from the catalogue"),
        h("span", { class: "sp" }),
        base !== null && h("label", { class: "lab-check i2" }, h("input", { type: "checkbox", checked: whole, "data-key": "whole", on: { change: (event) => on.whole(event.target.checked) } }), ` what v${base} had too`),
        base !== null && lines && h("span", { class: "i3 desk" }, `shaded: new since v${base}`)]);
  const checks = part(h("div", { class: "lab-checks" }), (found, ended) => found && [
    check(found.again !== false, found.again === null ? "not scored twice" : found.again ? "same score twice" : "another score the second time", found.again === null),
    check(!found.nan, found.nan ? `NaN for ${count(found.nan, "sample")}` : "no NaN"),
    check(!found.failed, found.failed ? `fails on ${found.failed} of ${found.scored}` : "no errors"),
    check(!found.constant, found.low === null ? "no values" : found.constant ? `always ${plain(found.low)}` : `${plain(found.low)} to ${plain(found.high)}`, found.low === null),
    check(!ended && found.milliseconds < 100, `${time(found.milliseconds)} each`),
    found.guessed.map((sentence) => check(true, sentence, true)),
  ]);
  const complaint = part(h("div", { class: "lab-complaint", role: "alert" }), (found) => found && [
    h("span", {}, found.text), found.line && [" ", h("button", { type: "button", class: "link", "data-key": "complaintline", on: { click: () => on.toLine(found.line) } }, `Go to line ${found.line}`)],
  ]);
  const beside = part(h("span", { class: "lab-against" }), (value, options) => options.length > 1 && [
    h("label", { class: "i3" }, "beside ", select(value, options, on.against)),
  ]);
  const printed = part(h("div", { class: "lab-printed" }), (text) => text && h("details", { open: true }, h("summary", {}, "Printed", h("span", { class: "i3" }, text.length >= 2000 ? " (the end of it)" : "")), h("pre", {}, text)));

  return { acts, tabs, tools, checks, complaint, beside, printed };
}

function select(value, options, onPick) {
  const box = h("select", { class: "lab-select", "aria-label": "Compare with", "data-key": "against", on: { change: () => onPick(box.value) } }, options.map(([name, words]) => h("option", { value: name }, words)));
  box.value = value;
  return box;
}

const check = (good, words, unknown = false) => h("span", { class: unknown ? "i3" : good ? "" : "crit" }, h("span", { class: unknown ? "i3" : good ? "ok" : "b" }, unknown ? "–" : good ? "✓" : "✗"), ` ${words}`);

const time = (milliseconds) => (!known(milliseconds) ? "–" : milliseconds < 1 ? `${(milliseconds * 1000).toFixed(0)} µs` : milliseconds < 1000 ? `${milliseconds.toFixed(1)} ms` : duration(milliseconds / 1000));

const when = (seconds) => new Date(seconds * 1000).toLocaleString("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
