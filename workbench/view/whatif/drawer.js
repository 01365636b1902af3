// The what-if drawer: other settings asked of every recorded step, without a GPU. It says what a step would have asked for,
// never how the run would have gone. The question lies in the cursor, so a link carries it.

import { h, oneLine, part, show } from "../common/dom.js";
import { forkLink } from "../common/fork_link.js";
import { count, fixed, known, percent, plain, short } from "../common/format.js";

const WAIT = 120; // milliseconds after the last change before the server is asked
const AGAIN = 700; // while a reward is being scored
const LOSSES = ["grpo", "dapo", "dapo_group", "bnpo", "dr_grpo", "cispo", "sapo", "luspo"];
const DIVIDE = [
  ["Group std", { scale_rewards: "group" }],
  ["Batch std", { scale_rewards: "batch" }],
  ["Nothing", { scale_rewards: "none" }],
  ["RLOO", { scale_rewards: "none", advantage_baseline: "leave_one_out" }],
  ["GDPO", { multi_objective_aggregation: "normalize_then_sum" }],
];
const DIVIDING = ["scale_rewards", "advantage_baseline", "multi_objective_aggregation"];
const TOKENS = ["loss_type", "epsilon", "epsilon_high"];

/** The question of a cursor as {name: text}. */
export const question = (cursor) => (cursor.whatif === null ? null : Object.fromEntries(new URLSearchParams(cursor.whatif)));
const written = (sets) => String(new URLSearchParams(sets));
const lines = (sets) => Object.entries(sets).map(([name, value]) => `${name}=${value}`);

/** `go(change)` moves the cursor; `onAnswer()` when there is a new answer to draw; `canRun` where code may be run and New run opened. */
export function makeWhatIf({ store, header, go, onAnswer, canRun }) {
  let cursor = null;
  let step = null;
  let answer = null; // of the sample-level question, with the sets and the step it was asked for
  let tokens = null;
  let trouble = "";
  let timer = null;
  let asked = "";
  let round = 0;

  const now = () => question(cursor) ?? {};
  // A setting that people changed on the way has no one value: every step is asked with the one it had, unless another is named.
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

  const controls = makeControls({ header, value, way, set, score: canRun ? score : null });
  const head = h("div", { class: "ph" }, h("h2", {}, "What if"), h("span", { class: "note" }, "what each recorded step would have asked for with these, not how the run would have gone"), h("span", { class: "sp" }),
    h("button", { type: "button", class: "link quiet", "aria-label": "Close what if", on: { click: () => go({ whatif: null }) } }, "Close ", h("kbd", { class: "desk" }, "w")));
  const said = h("div", { class: "ifsaid", role: "status" });
  const acts = h("div", { class: "acts" });
  const element = h("section", { class: "panel whatif", "aria-label": "What if", hidden: true }, head, h("div", { class: "ifbody" }, controls.element, h("div", { class: "ifresult" }, said, acts)));

  const saidPart = part(said, (sets, result, token, at, wrong) => [
    wrong && h("p", { class: "crit" }, wrong),
    !wrong && (Object.keys(sets).length ? table(result, token, at) : h("p", { class: "i2" }, "Change something on the left. Every recorded step is asked again in the time of a click; curves then carry a dashed line.")),
  ]);
  const actsPart = part(acts, (sets, at) => Object.keys(sets).length > 0 && [
    canRun && at !== null && h("a", { class: "btn pri", href: forkLink(store.run, at, sets), "data-key": "iffork" }, `Fork from step ${at} with these`),
    h("button", { type: "button", class: "btn", "data-key": "ifreset", on: { click: () => go({ whatif: "" }) } }, "As recorded"),
  ]);

  /** Have the server score every recorded answer with a reward; what it says against it is shown. */
  async function score(name) {
    try {
      await store.score(name);
      trouble = "";
      asked = "";
    } catch (error) {
      trouble = error.status ? error.message : "Not sent: the server does not answer.";
      drawSaid();
      throw error;
    }
  }

  async function look() {
    const mine = ++round;
    const sets = now();
    const question = lines(sets);
    try {
      const found = question.length ? await store.whatif(question, step) : null;
      if (mine !== round) return;
      trouble = "";
      answer = found && { ...found, step };
      if (!TOKENS.some((name) => name in sets)) tokens = null;
      drawSaid();
      onAnswer();
      if (found?.scoring && found.scoring.done < found.scoring.of) timer = setTimeout(look, AGAIN);
      else if (TOKENS.some((name) => name in sets)) await lookAtTokens(question, mine);
    } catch (error) {
      if (mine !== round) return;
      trouble = error.status ? error.message : "No answer from the server yet.";
      answer = tokens = null;
      drawSaid();
      onAnswer();
    }
  }

  async function lookAtTokens(question, mine) {
    let whole = null;
    for (let after = null, more = true; more; ) {
      const some = await store.whatifTokens(question, after);
      if (mine !== round) return;
      whole = whole ? { ...some, ...Object.fromEntries(["steps", "recorded", "asked", "moved"].map((name) => [name, [...whole[name], ...some[name]]])) } : some;
      tokens = whole;
      after = some.next;
      more = after !== null;
      drawSaid();
    }
  }

  const drawSaid = () => (saidPart.update(now(), answer && Object.keys(now()).length ? answer : null, tokens, step, trouble), actsPart.update(now(), step));

  return {
    element,
    update(next, at) {
      cursor = next;
      const open = cursor.whatif !== null && ["live", "group"].includes(cursor.view);
      element.hidden = !open;
      if (!open) {
        if (answer || asked) {
          clearTimeout(timer);
          round++;
          answer = tokens = null;
          asked = "";
        }
        return;
      }
      step = at;
      controls.sync();
      drawSaid();
      const key = JSON.stringify([cursor.whatif, step, cursor.step === null ? store.newest : null]);
      if (key === asked) return;
      asked = key;
      clearTimeout(timer);
      timer = setTimeout(look, WAIT);
    },
    /** The columns to draw dashed over the curves, by step; null while nothing is asked. */
    get columns() {
      return answer && cursor.whatif ? answer : null;
    },
    /** What the group `k` of a step would have been asked, in sample order; null where it is not known. */
    advantages: (at, k) => (answer && cursor.whatif && answer.step === at ? (answer.groups?.[k] ?? null) : null),
  };
}

// -- controls --------------------------------------------------------------------------------------

function makeControls({ header, value, way, set, score }) {
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
      input.title = changed ? `${label} was changed on the way: every step is asked with the one it had, unless you name another.` : "";
      if (document.activeElement !== input) input.value = changed ? "" : (value(name) ?? "");
    }
    syncs.push(sync);
    return input;
  }

  const size = Number(header.config.num_generations);
  const slider = h("input", { type: "range", min: 2, max: size, step: 1, "aria-label": "Samples of a group, G′", "data-set": "num_generations", on: { input: () => set({ num_generations: slider.value }) } });
  const shown = h("b", { class: "ifout" });
  syncs.push(() => ((slider.value = value("num_generations")), (shown.textContent = `${value("num_generations")} of ${size}`)));

  const own = { ...Object.fromEntries(DIVIDING.map((name) => [name, header.config[name]])) };
  const plainDivision = { scale_rewards: "group", advantage_baseline: "mean", multi_objective_aggregation: "sum_then_normalize" };
  const divide = segment("Divide by", DIVIDE.map(([label, changes]) => [label, { ...plainDivision, ...changes }]), () =>
    DIVIDE.findIndex(([, changes]) => Object.entries({ ...plainDivision, ...changes }).every(([name, text]) => String(value(name) ?? own[name]) === text)));
  const std = segment("Std", [["n − 1", { advantage_std: "sample" }], ["n", { advantage_std: "population" }]], () => ["sample", "population"].indexOf(value("advantage_std")));
  const kl = segment("KL goes into", [["the loss", { kl_in: "loss" }], ["the reward", { kl_in: "reward" }]], () => ["loss", "reward"].indexOf(value("kl_in")));
  const loss = h("select", { class: "ifnumber", "aria-label": "Loss", "data-set": "loss_type", on: { change: () => set({ loss_type: loss.value }) } }, LOSSES.map((name) => h("option", { value: name }, name)));
  syncs.push(() => (loss.value = value("loss_type")));

  const rewards = makeRewards({ header, value, set, score });
  syncs.push(rewards.sync);

  return {
    element: h("div", { class: "ifcontrols" },
      h("div", { class: "ifcol" }, field("Samples of a group, G′", slider, shown), field("Divide by", divide), field("Std over", std)),
      h("div", { class: "ifcol" }, field("Rewards", rewards.element), field("β", numberBox("beta", "β", { min: 0, step: "any" }), kl)),
      h("div", { class: "ifcol" }, field("Loss, of kept tokens", loss), field("Clip below, above", numberBox("epsilon", "Clip below", { min: 0, max: 1, step: 0.05 }), numberBox("epsilon_high", "Clip above", { min: 0, step: 0.05, placeholder: "as below" })))),
    sync: () => syncs.forEach((one) => one()),
  };
}

// Rewards: on or off, with a weight; and one that the run never had, from a file.
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

// -- what comes out --------------------------------------------------------------------------------

const mean = (values) => {
  const there = values.filter(known);
  return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null;
};
const digits = (value) => (known(value) ? (Math.abs(value) >= 10 ? fixed(value, 0) : short(value, Math.abs(value) < 0.1 ? 3 : 2)) : "–");
const to = (from, next, say) => (say(from) === say(next) ? [say(next)] : [h("span", { class: "i3" }, say(from), " → "), h("b", {}, say(next))]);

function table(result, token, step) {
  if (!result) return h("p", { class: "i3" }, "Asking the record…");
  const { recorded, asked, difference, steps, scoring } = result;
  const at = steps.indexOf(step);
  const both = (name, say) => [to(mean(recorded[name]), mean(asked[name]), say), at < 0 ? "–" : to(recorded[name][at], asked[name][at], say)];
  const one = (name) => [h("b", {}, percent(mean(difference[name]))), at < 0 ? "–" : h("b", {}, percent(difference[name][at]))];
  const rows = [
    ["Dead groups", ...both("dead", percent)],
    ["Mean |A|", ...both("size", digits)],
    mean(recorded.reward) !== mean(asked.reward) && ["Mean reward", ...both("reward", digits)],
    ["Groups with another winner", ...one("winner")],
    ["Answers pushed the other way", ...one("flipped")],
    ["Gradient that goes elsewhere", ...one("moved")],
    ["Answers that carry a step", ...both("effective", digits)],
    (mean(recorded.pull) ?? 0) !== (mean(asked.pull) ?? 0) && ["Penalty β × KL, nats a token", ...both("pull", digits)],
  ].filter(Boolean);
  return [
    h("table", { class: "iftable" },
      h("thead", {}, h("tr", {}, h("th", {}, h("span", { class: "unseen" }, "what")), h("th", { class: "r", scope: "col" }, `all ${count(steps.length, "step")}`), h("th", { class: "r", scope: "col" }, step === null ? "" : `step ${step}`))),
      h("tbody", {}, rows.map(([name, all, here]) => h("tr", {}, h("td", {}, name), h("td", { class: "r" }, all), h("td", { class: "r" }, here))), token && tokenRows(token, step))),
    scoring && h("p", { class: "note" }, `${oneLine(scoring.name, 60)}: ${scoring.done.toLocaleString("en")} of ${scoring.of.toLocaleString("en")} answers scored${scoring.failed ? `, ${scoring.failed} failed` : ""}.`),
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
    h("tr", { class: "iftokens" }, h("td", { colspan: 3 }, `Tokens are kept of ${plain(token.steps.length)} of ${token.of.toLocaleString("en")} steps${token.next === null ? "" : ", reading on"}; nothing is said of the others.`)),
    row("A further pass would clip, fell", "clipped_low"),
    row("A further pass would clip, rose", "clipped_high"),
    row("Gradient on the longer half", "longer_half"),
    h("tr", {}, h("td", {}, "Gradient that goes elsewhere"), h("td", { class: "r" }, h("b", {}, percent(mean(token.moved)))), h("td", { class: "r" }, at < 0 ? "–" : h("b", {}, percent(token.moved[at])))),
  ];
}
