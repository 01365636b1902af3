// Try it: samples of one prompt from the run's model and from the model it began with, side by side.

import { h, show, visible } from "../common/dom.js";
import { count, fixed, known } from "../common/format.js";

/** `ask` sends a probe (probe_client.js); null without a server. */
export function makeTry({ store, header, ask }) {
  const prompt = h("textarea", { name: "prompt", rows: 3, maxlength: 20000, required: true, "data-key": "try-prompt", placeholder: "a question as a person would write it", spellcheck: "false" });
  const n = h("select", { name: "n", "data-key": "try-n" }, [1, 2, 4, 8, 16].map((one) => h("option", { value: one, selected: one === 4 }, one)));
  const temperature = h("input", { name: "temperature", type: "number", min: 0, max: 5, step: 0.1, value: header.config.temperature, "data-key": "try-temperature" });
  const step = h("select", { name: "step", "data-key": "try-step" }, h("option", { value: "" }, "as it is now"));
  const button = h("button", { type: "submit", class: "btn pri", "data-key": "try-ask" }, "Ask both models");
  const field = (words, control) => h("label", {}, h("span", { class: "lab" }, words), control);
  const form = h("form", { class: "panel findform ask", "aria-label": "Ask the models" }, field("Prompt", prompt), h("div", { class: "pair" }, field("Samples each", n), field("Temperature", temperature)), field("The run’s model", step), button,
    h("p", { class: "note" }, "The prompt is rendered as in training. A run that is training replies between two steps."));
  const columns = [column("base", "Base model"), column("tuned", "This run")];
  const element = h("div", { class: "view viewtry" }, h("div", { class: "verdict" }, h("h1", {}, "One prompt, before and after"), h("p", {}, "Samples of the model before training, beside those of the model now.")),
    h("div", { class: "finding" }, form, h("div", { class: "trial" }, columns.map((one) => one.element))));
  let ready = false;
  let round = 0;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) (event.preventDefault(), send());
    if (event.key === "Escape") prompt.blur();
  });

  async function send() {
    const text = prompt.value.trim();
    if (!text || !ask) return prompt.focus();
    const mine = ++round;
    button.disabled = true;
    const body = { prompt: text, n: Number(n.value), temperature: temperature.value === "" ? null : Number(temperature.value) };
    const [base, tuned] = columns;
    // One worker serves both, one after the other.
    for (const [one, extra] of [[tuned, step.value === "" ? {} : { step: Number(step.value) }], [base, { base: true }]]) {
      one.say("Waiting…");
      one.ask = async () => {
        try {
          const reply = await ask("sample", { ...body, ...extra }, (words, model) => mine === round && one.say(words, model));
          if (mine === round) one.show(reply);
        } catch (error) {
          if (mine === round) one.fail(error.status ? error.message : "No response from the server.");
        }
      };
    }
    await Promise.all([tuned.ask(), base.ask()]);
    if (mine === round) button.disabled = false;
  }

  return {
    element,
    async update({ question }) {
      if (!ask) return show(element, h("p", { class: "missing" }, "This page holds a recording only: its model cannot be reached from here."));
      prompt.value ||= question ?? "";
      if (ready) return;
      ready = true;
      const { checkpoints } = await store.askChoices().catch(() => ({ checkpoints: [] }));
      step.append(...checkpoints.map((at) => h("option", { value: at }, `the checkpoint after ${count(at, "step")}`)));
    },
    fill: (question) => (prompt.value = question),
    focus: () => requestAnimationFrame(() => prompt.focus()),
  };
}

function column(name, title) {
  const head = h("h2", {}, title);
  const status = h("p", { class: "note", role: "status" }, "No samples yet.");
  const list = h("ol", { class: "trysamples" });
  const element = h("section", { class: "panel trycolumn", "data-column": name, "aria-label": title }, h("div", { class: "ph" }, head), status, list);
  return {
    element,
    say(words, model) {
      status.className = "note";
      status.textContent = model ? `${words} Model: ${model}.` : words;
      show(list);
    },
    fail(words) {
      status.className = "crit";
      status.textContent = words;
    },
    show({ samples, model, prompt, seconds_taken: seconds }) {
      const different = new Set(samples.map((sample) => sample.text)).size;
      status.textContent = `${model}: ${count(samples.length, "sample")}, ${different === samples.length ? "all different" : `${different} different`}${known(seconds) ? `, ${fixed(seconds, 1)} s` : ""}. Prompt of ${count(prompt.tokens, "token")}.`;
      show(list, samples.map((sample, i) => h("li", {},
        h("div", { class: "trysamplehead" }, h("b", {}, `#${i + 1}`), h("span", { class: "i3" }, sample.finish_reason === "length" ? `cut at ${count(sample.length, "token")}` : count(sample.length, "token")), h("span", { class: "sp" }), h("span", { class: "i3 mono", title: "log-probability of the whole sample" }, `log p ${fixed(sample.logprob_sum, 1)}`)),
        h("pre", { dir: "auto" }, visible(sample.text, 20_000) || h("span", { class: "i3" }, "(empty)")))));
    },
  };
}
