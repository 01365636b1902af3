// The code of a reward as it was saved with the run, beside the sample it scored and the value it returned. A line that raised is marked.

import { h, oneLine, visible } from "../common/dom.js";
import { fixed, known, plain } from "../common/format.js";

/** A dialog over `root` with the code of reward `name`, for one sample of a step. */
export async function openRewardCode({ root, store, name, sample, step }) {
  const value = sample.rewards[name];
  const reason = sample.reasons?.[name] ?? "";
  const weight = sample.weights?.[name] ?? 1;
  const body = h("div", {}, h("p", { class: "i3" }, "Reading the code…"));
  const sheet = h("dialog", { class: "sheet wide codesheet", "aria-label": `Reward ${oneLine(name, 60)}` },
    h("h2", {}, h("span", { class: "mono" }, oneLine(name, 60)), ` of #${sample.index + 1}`),
    h("dl", { class: "codefacts" },
      h("dt", {}, "returned"), h("dd", {}, known(value) ? [h("b", { class: "mono" }, fixed(value)), weight === 0 ? ", watched only" : ` × ${plain(weight)} = ${fixed(value * weight)}`] : h("span", { class: "crit" }, visible(reason || "no score", 600))),
      h("dt", {}, "for"), h("dd", { class: "mono" }, oneLine(sample.text, 240))),
    body,
    h("form", { method: "dialog" }, h("button", { class: "btn", type: "submit" }, "Close")));
  root.append(sheet);
  sheet.addEventListener("close", () => sheet.remove());
  sheet.showModal();
  try {
    const code = await store.code(name, step);
    const broke = new RegExp(`Line (\\d+) of ${code.file.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`, "i").exec(reason);
    body.replaceChildren(
      h("p", { class: "note" }, `${oneLine(code.file, 120)}: ${known(code.since) ? `the version that holds from step ${code.since} on; it was given while the run trained` : "the version that the run began with"}${known(code.later) ? `. Another one holds from step ${code.later} on` : ""}${code.ours ? ". It ships with the workbench" : ""}.`),
      h("pre", { class: "code", tabindex: 0, "aria-label": "Code of the reward" }, code.parts.map(({ first, lines }, i) => [i > 0 && h("div", { class: "row" }, h("span", {}, "⋯"), h("span", {})),
        lines.map((line, at) => h("div", { class: `row ${broke && Number(broke[1]) === first + at ? "hit" : ""}` }, h("span", {}, first + at), h("span", {}, visible(line, 2000) || " ")))])));
    body.querySelector(".hit")?.scrollIntoView({ block: "center" });
  } catch (error) {
    body.replaceChildren(h("p", { class: "crit" }, error.status ? error.message : "No response from the server yet."));
  }
}
