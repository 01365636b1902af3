// The what-if drawer: advantages of every recorded step recomputed with other settings, without a GPU. It shows what a step would have
// computed, never how the run would have gone. The changed settings are part of the cursor, so a link carries them.

import { h, oneLine, part, show } from "../common/dom.js";
import { forkLink } from "../common/fork_link.js";
import { count, fixed, known, percent, plain, short } from "../common/format.js";

const WAIT = 120; // ms after the last change before the server is called
const AGAIN = 700; // ms between two calls while a reward is being scored
const CHOICE_LABELS = { sample: "n − 1", population: "n", loss: "the loss", reward: "the reward" };

/** The changed settings of a cursor as {name: text}; null while the drawer is closed. */
const changedSettings = (cursor) => (cursor.whatif === null ? null : Object.fromEntries(new URLSearchParams(cursor.whatif)));
const written = (sets) => String(new URLSearchParams(sets));
const lines = (sets) => Object.entries(sets).map(([name, value]) => `${name}=${value}`);

/**
 * `go(change)` moves the cursor; `onResult()` is called when there are new figures to draw; `canRun`: reward code may be run and New run
 * opened. Choices, ranges and defaults of settings come from the glossary.
 */
export function makeWhatIfDrawer({ store, header, glossary, go, onResult, canRun }) {
  let cursor = null;
  let step = null;
  let result = null; // the recomputed figures, with the step they were computed for
  let tokens = null; // the same for settings that need tokens
  let problem = "";
  let timer = null;
  let loadedKey = "";
  let round = 0;

  const now = () => changedSettings(cursor) ?? {};
  const needsTokens = (sets) => (glossary.token_settings ?? []).some((name) => name in sets);
  // A live setting that was changed has no single value: each step is recomputed with the value it had, unless the drawer sets one.
  const held = (name) => [[0, header.config[name]], ...store.data.events.filter(({ kind, data }) => kind === "setting_changed" && data[name] && "to" in data[name]).map((event) => [event.step ?? 0, event.data[name].to])];
  const moved = (name) => held(name).length > 1;
  const base = (name) => held(name).findLast(([since]) => since <= (step ?? Infinity))[1];
  const value = (name) => now()[name] ?? base(name);
  const way = (name) => (moved(name) && !(name in now()) ? held(name).map(([, text]) => plain(text)).join(" → ") : null);
  function set(changes) {
    const sets = { ...now(), ...changes };
    for (const [name, text] of Object.entries(sets)) if (text === null || (!moved(name) && String(base(name)) === String(text))) delete sets[name];
    go({ whatif: written(sets) });
  }

  const controls = makeControls({ header, glossary, value, way, set, score: canRun ? score : null });
  const head = h("div", { class: "ph" }, h("h2", {}, "What if"), h("span", { class: "note" }, "what each recorded step would have computed with these, not how the run would have gone"), h("span", { class: "sp" }),
    h("button", { type: "button", class: "link quiet", "aria-label": "Close what if", on: { click: () => go({ whatif: null }) } }, "Close ", h("kbd", { class: "desk" }, "w")));
  const figures = h("div", { class: "ifstatus", role: "status" });
  const acts = h("div", { class: "acts" });
  const element = h("section", { class: "panel whatif", "aria-label": "What if", hidden: true }, head, h("div", { class: "ifbody" }, controls.element, h("div", { class: "ifresult" }, figures, acts)));

  const figuresPart = part(figures, (sets, found, token, at, wrong) => [
    wrong && h("p", { class: "crit" }, wrong),
    !wrong && (Object.keys(sets).length ? table(found, token, at) : h("p", { class: "i2" }, "Change something on the left. Every recorded step is recomputed at once; curves then show a dashed line.")),
  ]);
  const actsPart = part(acts, (sets, at) => Object.keys(sets).length > 0 && [
    canRun && at !== null && h("a", { class: "btn pri", href: forkLink(store.run, at, sets), "data-key": "iffork" }, `Fork from step ${at} with these`),
    h("button", { type: "button", class: "btn", "data-key": "ifreset", on: { click: () => go({ whatif: "" }) } }, "As recorded"),
  ]);

  /** Start to score every recorded sample with a reward on the server; a refusal is shown. */
  async function score(name) {
    try {
      await store.score(name);
      problem = "";
      loadedKey = "";
    } catch (error) {
      problem = error.status ? error.message : "Not sent: the server does not respond.";
      draw();
      throw error;
    }
  }

  async function load() {
    const mine = ++round;
    const sets = now();
    const query = lines(sets);
    try {
      const found = query.length ? await store.whatif(query, step) : null;
      if (mine !== round) return;
      problem = "";
      result = found && { ...found, step };
      if (!needsTokens(sets)) tokens = null;
      draw();
      onResult();
      if (found?.scoring && found.scoring.done < found.scoring.of) timer = setTimeout(load, AGAIN);
      else if (needsTokens(sets)) await loadTokens(query, mine);
    } catch (error) {
      if (mine !== round) return;
      problem = error.status ? error.message : "No response from the server yet.";
      result = tokens = null;
      draw();
      onResult();
    }
  }

  async function loadTokens(query, mine) {
    let all = null;
    for (let after = null, more = true; more; ) {
      const some = await store.whatifTokens(query, after);
      if (mine !== round) return;
      all = all ? { ...some, ...Object.fromEntries(["steps", "recorded", "asked", "moved"].map((name) => [name, [...all[name], ...some[name]]])) } : some;
      tokens = all;
      after = some.next;
      more = after !== null;
      draw();
    }
  }

  const draw = () => (figuresPart.update(now(), result && Object.keys(now()).length ? result : null, tokens, step, problem), actsPart.update(now(), step));

  return {
    element,
    update(next, at) {
      cursor = next;
      const open = cursor.whatif !== null && ["live", "group"].includes(cursor.view);
      element.hidden = !open;
      if (!open) {
        if (result || loadedKey) {
          clearTimeout(timer);
          round++;
          result = tokens = null;
          loadedKey = "";
        }
        return;
      }
      step = at;
      controls.sync();
      draw();
      const key = JSON.stringify([cursor.whatif, step, cursor.step === null ? store.newest : null]);
      if (key === loadedKey) return;
      loadedKey = key;
      clearTimeout(timer);
      timer = setTimeout(load, WAIT);
    },
    /** The recomputed columns, drawn dashed over the curves; null while no setting is changed. */
    get columns() {
      return result && cursor.whatif ? result : null;
    },
    /** The recomputed advantages of group `k` of a step, in sample order; null where they are not loaded. */
    advantages: (at, k) => (result && cursor.whatif && result.step === at ? (result.groups?.[k] ?? null) : null),
  };
}

// -- controls --------------------------------------------------------------------------------------

function makeControls({ header, glossary, value, way, set, score }) {
  const syncs = [];
  const field = (title, ...children) => h("div", { class: "iffield" }, h("span", { class: "lab" }, title), h("div", { class: "ifctl" }, children));

  function segment(title, choices, read) {
    const buttons = choices.map(([label, changes]) => h("button", { type: "button", "aria-pressed": "false", "data-key": `if-${title}-${label}`, on: { click: () => set(changes) } }, label));
    syncs.push(() => {
      const at = read();
      buttons.forEach((button, i) => (button.classList.toggle("on", i === at), button.setAttribute("aria-pressed", String(i === at))));
    });
    return h("span", { class: "seg", role: "group", "aria-label": title }, buttons);
  }

  function numberBox(name, label, attributes) {
    const input = h("input", { type: "number", class: "ifnumber", "aria-label": label, "data-set": name, ...attributes, on: { input: () => input.checkValidity() && set({ [name]: input.value === "" ? null : input.value }), change: sync } });
    const empty = attributes.placeholder ?? "";
    function sync() {
      const changed = way(name);
      input.placeholder = changed ?? empty;
      input.title = changed ? `${label} was changed on the way: every step is recomputed with the value it had, unless you set one.` : "";
      if (document.activeElement !== input) input.value = changed ? "" : (value(name) ?? "");
    }
    syncs.push(sync);
    return input;
  }

  const size = Number(header.config.num_generations);
  const slider = h("input", { type: "range", min: 2, max: size, step: 1, "aria-label": "Samples of a group, G′", "data-set": "num_generations", on: { input: () => set({ num_generations: slider.value }) } });
  const shown = h("b", { class: "ifout" });
  syncs.push(() => ((slider.value = value("num_generations")), (shown.textContent = `${value("num_generations")} of ${size}`)));

  // A scaling is a few settings at once: those it does not name have their defaults.
  const scalings = glossary.variants?.scalings ?? [];
  const defaults = Object.fromEntries(scalings.flatMap(({ settings }) => Object.keys(settings)).map((name) => [name, glossary.settings[name].default]));
  const divide = segment("Divide by", scalings.map(({ title, settings }) => [title, { ...defaults, ...settings }]), () =>
    scalings.findIndex(({ settings }) => Object.entries({ ...defaults, ...settings }).every(([name, text]) => String(value(name)) === text)));
  const choices = (name) => glossary.settings[name]?.choices ?? [];
  const choiceSegment = (title, name) => segment(title, choices(name).map((one) => [CHOICE_LABELS[one] ?? one, { [name]: one }]), () => choices(name).indexOf(value(name)));
  const std = choiceSegment("Std", "advantage_std");
  const kl = choiceSegment("KL goes into", "kl_in");
  const loss = h("select", { class: "ifnumber", "aria-label": "Loss", "data-set": "loss_type", on: { change: () => set({ loss_type: loss.value }) } },
    Object.entries(glossary.variants?.losses ?? {}).map(([name, { words, formula }]) => h("option", { value: name, title: `${words}: ${formula}` }, name)));
  syncs.push(() => (loss.value = value("loss_type")));
  const limits = (name) => ({ min: glossary.settings[name]?.min, max: glossary.settings[name]?.max });

  const rewards = makeRewards({ header, value, set, score });
  syncs.push(rewards.sync);

  return {
    element: h("div", { class: "ifcontrols" },
      h("div", { class: "ifcol" }, field("Samples of a group, G′", slider, shown), field("Divide by", divide), field("Std over", std)),
      h("div", { class: "ifcol" }, field("Rewards", rewards.element), field("β", numberBox("beta", "β", { ...limits("beta"), step: "any" }), kl)),
      h("div", { class: "ifcol" }, field("Loss, of kept tokens", loss), field("Clip below, above", numberBox("epsilon", "Clip below", { ...limits("epsilon"), step: 0.05 }), numberBox("epsilon_high", "Clip above", { ...limits("epsilon_high"), step: 0.05, placeholder: "as below" })))),
    sync: () => syncs.forEach((one) => one()),
  };
}

// Rewards: on or off, with a weight; and a new one, from a file.
function makeRewards({ header, value, set, score }) {
  const body = h("div", { class: "ifrewards" });
  const specs = () => {
    const text = value("rewards");
    if (typeof text !== "string") return (text ?? header.rewards).map(({ name, weight, enabled }) => ({ name, weight: weight || 1, on: enabled !== false && weight !== 0 }));
    const chosen = text.split(",").filter(Boolean).map((one) => {
      const cut = one.lastIndexOf("=");
      return { name: one.slice(0, cut), weight: Number(one.slice(cut + 1)), on: true };
    });
    const off = header.rewards.filter((one) => !chosen.some(({ name }) => name === one.name)).map(({ name, weight }) => ({ name, weight: weight || 1, on: false }));
    return [...chosen, ...off].sort((a, b) => place(a) - place(b));
  };
  const place = ({ name }) => {
    const at = header.rewards.findIndex((one) => one.name === name);
    return at < 0 ? Infinity : at;
  };
  const write = (list) => {
    const text = list.filter(({ on }) => on).map(({ name, weight }) => `${name}=${weight}`).join(",");
    const same = header.rewards.filter(({ weight, enabled }) => enabled !== false && weight !== 0).map(({ name, weight }) => `${name}=${weight}`).join(",");
    set({ rewards: text === same ? null : text || null });
  };
  const label = (name) => oneLine(name.includes(":") ? name.slice(name.lastIndexOf(":") + 1) : name, 22);
  const change = (i, changes) => write(specs().map((one, at) => (at === i ? { ...one, ...changes } : one)));

  const add = h("input", { type: "text", class: "iftext", placeholder: "another: file.py:function", "aria-label": "Another reward, path/file.py:function", spellcheck: "false", on: { change: () => {
    const name = add.value.trim();
    if (!name || name.includes(",") || name.includes("=")) return;
    add.value = "";
    score(name).then(() => write([...specs().filter((one) => one.name !== name), { name, weight: 1, on: true }]), () => (add.value = name));
  } } });

  const rows = part(body, (list) => list.map((one, i) => h("label", { class: "ifreward", title: one.name },
    h("input", { type: "checkbox", checked: one.on, "aria-label": `Count ${label(one.name)}`, "data-key": `ifon-${one.name}`, on: { change: (event) => change(i, { on: event.target.checked }) } }),
    h("span", { class: "clip" }, label(one.name)),
    h("input", { type: "number", class: "ifnumber", step: "any", value: one.weight, disabled: !one.on, "aria-label": `Weight of ${label(one.name)}`, "data-key": `ifweight-${one.name}`, on: { change: (event) => event.target.value !== "" && Number(event.target.value) !== 0 && change(i, { weight: Number(event.target.value) }) } }))));
  return { element: h("div", {}, body, score && add), sync: () => rows.update(specs()) };
}

// -- figures ---------------------------------------------------------------------------------------

const mean = (values) => {
  const there = values.filter(known);
  return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null;
};
const digits = (value) => (known(value) ? (Math.abs(value) >= 10 ? fixed(value, 0) : short(value, Math.abs(value) < 0.1 ? 3 : 2)) : "–");
const to = (from, next, say) => (say(from) === say(next) ? [say(next)] : [h("span", { class: "i3" }, say(from), " → "), h("b", {}, say(next))]);

function table(found, token, step) {
  if (!found) return h("p", { class: "i3" }, "Recomputing…");
  const { recorded, asked: recomputed, difference, steps, scoring } = found;
  const at = steps.indexOf(step);
  const both = (name, say) => [to(mean(recorded[name]), mean(recomputed[name]), say), at < 0 ? "–" : to(recorded[name][at], recomputed[name][at], say)];
  const one = (name) => [h("b", {}, percent(mean(difference[name]))), at < 0 ? "–" : h("b", {}, percent(difference[name][at]))];
  const rows = [
    ["Dead groups", ...both("dead", percent)],
    ["Mean |A|", ...both("size", digits)],
    mean(recorded.reward) !== mean(recomputed.reward) && ["Mean reward", ...both("reward", digits)],
    ["Groups with another winner", ...one("winner")],
    ["Samples pushed the other way", ...one("flipped")],
    ["Gradient that goes elsewhere", ...one("moved")],
    ["Samples that carry a step", ...both("effective", digits)],
    (mean(recorded.pull) ?? 0) !== (mean(recomputed.pull) ?? 0) && ["Penalty β × KL, nats a token", ...both("pull", digits)],
  ].filter(Boolean);
  return [
    h("table", { class: "iftable" },
      h("thead", {}, h("tr", {}, h("th", {}, h("span", { class: "unseen" }, "what")), h("th", { class: "r", scope: "col" }, `all ${count(steps.length, "step")}`), h("th", { class: "r", scope: "col" }, step === null ? "" : `step ${step}`))),
      h("tbody", {}, rows.map(([name, all, here]) => h("tr", {}, h("td", {}, name), h("td", { class: "r" }, all), h("td", { class: "r" }, here))), token && tokenRows(token, step))),
    scoring && h("p", { class: "note" }, `${oneLine(scoring.name, 60)}: ${scoring.done.toLocaleString("en")} of ${scoring.of.toLocaleString("en")} samples scored${scoring.failed ? `, ${scoring.failed} failed` : ""}.`),
  ];
}

function tokenRows(token, step) {
  const at = token.steps.indexOf(step);
  const all = (name) => ["recorded", "asked"].map((side) => mean(token[side].map((one) => one[name])));
  const here = (name) => (at < 0 ? null : ["recorded", "asked"].map((side) => token[side][at][name]));
  const row = (words, name) => {
    const mine = here(name);
    return h("tr", {}, h("td", {}, words), h("td", { class: "r" }, to(...all(name), percent)), h("td", { class: "r" }, mine ? to(...mine, percent) : "–"));
  };
  return [
    h("tr", { class: "iftokens" }, h("td", { colspan: 3 }, `Tokens are kept of ${plain(token.steps.length)} of ${token.of.toLocaleString("en")} steps${token.next === null ? "" : ", loading more"}; the others are not included.`)),
    row("A further pass would clip, fell", "clipped_low"),
    row("A further pass would clip, rose", "clipped_high"),
    row("Gradient on the longer half", "longer_half"),
    h("tr", {}, h("td", {}, "Gradient that goes elsewhere"), h("td", { class: "r" }, h("b", {}, percent(mean(token.moved)))), h("td", { class: "r" }, at < 0 ? "–" : h("b", {}, percent(token.moved[at])))),
  ];
}
