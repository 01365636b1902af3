// The dialog for settings that can change while the run trains. The server checks values while they are typed, and problems appear
// beside their fields; Enter sends them, and the run applies them at its next step boundary.

import { h, oneLine, show } from "../common/dom.js";
import { plain } from "../common/format.js";

const WAIT = 250;
const typed = (value) => (typeof value === "number" ? plain(value).replace("−", "-") : String(value ?? ""));

/** `open(name)` shows the dialog with the focus in the field of that setting. */
export function makeLiveSettings({ header, store, commands }) {
  const element = h("dialog", { class: "sheet livesettings", "aria-label": "Change settings" });
  let fields = {};
  let rewards = [];
  let timer = null;

  /** The settings in force now: those of the header, and what events have changed since. */
  function now() {
    const values = Object.fromEntries(header.live_settings.map(({ name, value }) => [name, value]));
    values.rewards = header.live_rewards ?? header.config.rewards;
    for (const { kind, data } of store.data.events) if (kind === "setting_changed") for (const [name, change] of Object.entries(data)) if (change && "to" in change) values[name] = change.to;
    return values;
  }

  function field(name, label, value) {
    const input = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", id: `change-${name}`, value: typed(value), "aria-describedby": `change-${name}-problem`, on: { input: soon } });
    const problem = h("output", { class: "problem", id: `change-${name}-problem` });
    fields[name] = { input, problem, was: typed(value) };
    return h("div", { class: "row" }, h("label", { for: `change-${name}`, class: "q", "data-tip": `setting-${name}` }, label), h("span", { class: "was" }, typed(value)), input, problem);
  }

  function reward(spec, i) {
    const weight = h("input", { type: "text", inputmode: "decimal", autocomplete: "off", id: `change-weight-${i}`, "aria-label": `Weight of ${oneLine(spec.name, 60)}`, value: typed(spec.weight), on: { input: soon } });
    const counts = h("input", { type: "checkbox", id: `change-counts-${i}`, checked: spec.enabled !== false, on: { change: soon } });
    rewards.push({ spec, weight, counts });
    return h("div", { class: "row reward" }, h("span", { class: "mono clip", title: oneLine(spec.name, 300) }, oneLine(spec.name.split("/").at(-1), 40)), h("span", { class: "was" }, `× ${typed(spec.weight)}`), weight, h("label", { for: `change-counts-${i}` }, counts, " counts"));
  }

  /** The values that differ from those when the dialog was opened. */
  function changes() {
    const found = {};
    for (const [name, { input, was }] of Object.entries(fields)) if (name !== "rewards" && input.value.trim() !== was) found[name] = input.value.trim();
    if (rewards.some(({ spec, weight, counts }) => weight.value.trim() !== typed(spec.weight) || counts.checked !== (spec.enabled !== false)))
      found.rewards = rewards.map(({ spec, weight, counts }) => ({ ...spec, weight: weight.value.trim(), enabled: counts.checked }));
    return found;
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(validate, WAIT);
  }

  function showProblems(problems) {
    for (const [name, { input, problem }] of Object.entries(fields)) {
      problem.textContent = problems[name] ?? "";
      input?.setAttribute("aria-invalid", String(name in problems));
    }
    const rest = Object.entries(problems).filter(([name]) => !(name in fields)).map(([, words]) => words);
    element.querySelector(".rest").textContent = rest.join(" ");
  }

  async function validate() {
    const wanted = changes();
    showProblems(Object.keys(wanted).length ? await commands.problems(wanted) : {});
  }

  async function apply(event) {
    event.preventDefault();
    clearTimeout(timer);
    const wanted = changes();
    if (!Object.keys(wanted).length) return element.close();
    const problems = await commands.problems(wanted);
    showProblems(problems);
    if (Object.keys(problems).length) return fields[Object.keys(problems)[0]]?.input?.focus();
    element.close();
    commands.send("set", wanted, `${Object.keys(wanted).join(", ")}: from the next step.`);
  }

  return {
    element,
    open(name = null) {
      fields = {};
      rewards = [];
      const values = now();
      const labels = Object.fromEntries(header.live_settings.map((setting) => [setting.name, setting.label]));
      const rows = Object.keys(labels).map((one) => field(one, labels[one], values[one]));
      const parts = (values.rewards ?? []).map(reward);
      fields.rewards = { input: null, problem: h("output", { class: "problem" }), was: "" };
      show(element,
        h("h2", {}, "Change while it runs"),
        h("p", { class: "i2" }, "Takes effect at the next step, is noted in the run’s history, and is marked with a pencil on the ribbon."),
        h("form", { on: { submit: apply } },
          h("div", { class: "rows" }, h("div", { class: "row head i3" }, h("span", {}, "Setting"), h("span", {}, "now"), h("span", {}, "from the next step")), rows, parts.length > 0 && h("div", { class: "row head i3" }, h("span", {}, "Reward"), h("span", {}, "weight")), parts, fields.rewards.problem),
          h("output", { class: "problem rest" }),
          h("div", { class: "acts" }, h("button", { class: "btn pri", type: "submit" }, "Apply from the next step"), h("button", { class: "btn", type: "button", on: { click: () => element.close() } }, "Cancel"))));
      element.showModal();
      const first = fields[name]?.input ?? fields.beta?.input;
      first?.focus();
      first?.select();
    },
  };
}
