// The functions of the code with their weights; one that is off is recorded only. And the catalogue to start from.

import { h, oneLine, part } from "../common/dom.js";
import { plain } from "../common/format.js";

/** `onParts(parts)` when a weight or a switch changes; `onLine(n)`. */
export function makeWeights({ onParts, onLine }) {
  const element = h("div", { class: "lab-weights" });
  let parts = [];

  const draw = part(element, (functions, values, frozen) => functions && functions.map(({ name, line }) => {
    const mine = values.find((one) => one.name === name) ?? { name, weight: 1, enabled: true };
    const box = h("input", { type: "text", inputmode: "decimal", class: "mono", "aria-label": `Weight of ${name}`, disabled: frozen || !mine.enabled, "data-key": `weight-${name}`, on: { change: () => weigh(name, box) } });
    box.value = plain(mine.weight).replace("−", "-");
    return h("span", { class: mine.enabled ? "lab-weight" : "lab-weight off" },
      h("label", { title: mine.enabled ? "Counts. Switch off to record it only." : "Recorded only." }, h("input", { type: "checkbox", checked: mine.enabled, disabled: frozen, "aria-label": `${name} counts`, "data-key": `on-${name}`, on: { change: (event) => change(name, { enabled: event.target.checked }) } })),
      h("button", { type: "button", class: "link quiet mono clip", "data-key": `go-${name}`, on: { click: () => onLine(line) } }, oneLine(name, 30)), h("span", { class: "i3" }, "×"), box);
  }));

  function weigh(name, box) {
    const weight = Number(box.value.replace("−", "-").replace(",", ".").trim());
    const good = box.value.trim() !== "" && Number.isFinite(weight) && Math.abs(weight) <= 1e6;
    box.classList.toggle("bad", !good);
    box.setAttribute("aria-invalid", String(!good));
    if (good) change(name, { weight });
  }

  function change(name, values) {
    const known = parts.some((one) => one.name === name) ? parts : [...parts, { name, weight: 1, enabled: true }];
    onParts(known.map((one) => (one.name === name ? { ...one, ...values } : one)));
  }

  return {
    element,
    update(functions, given, frozen) {
      parts = given;
      draw.update(functions, given, frozen);
    },
  };
}

/** The sheet of the catalogue. `onAdd(name)` puts a reward into the code, `onStart(name)` begins anew with it. */
export function makeCatalogue(catalogue, { onAdd, onStart }) {
  const families = Object.entries(Object.groupBy(catalogue, ({ family }) => family));
  const act = (run) => {
    element.close();
    run();
  };
  const element = h("dialog", { class: "sheet wide lab-catalogue", "aria-label": "Catalogue of rewards" },
    h("div", { class: "lab-cathead" }, h("h2", {}, "Start from the catalogue"), h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close"))),
    h("p", { class: "note" }, "A reward's code comes into the editor, to be read and changed. Its known weakness stands beneath it."),
    families.map(([family, rewards]) => h("section", {}, h("h3", {}, family),
      rewards.map((one) => h("div", { class: "lab-entry", "data-reward": one.name },
        h("div", {}, h("p", {}, h("b", { class: "mono" }, one.name), one.title ? ` ${one.title}` : ""), h("p", { class: "i2" }, coded(one.about)), h("p", { class: "note" }, coded(one.weakness))),
        h("span", { class: "acts" },
          h("button", { type: "button", class: "btn sm", "aria-label": `Add ${one.name} to the code`, on: { click: () => act(() => onAdd(one.name)) } }, "Add to the code"),
          h("button", { type: "button", class: "btn sm ghost", "aria-label": `Start anew with ${one.name}`, on: { click: () => act(() => onStart(one.name)) } }, "Start anew")))))));
  return { element, open: () => element.showModal() };
}

/** Text in which `backticks` stand around code. */
const coded = (text) => text.split("`").map((piece, i) => (i % 2 ? h("span", { class: "mono" }, piece) : piece));
