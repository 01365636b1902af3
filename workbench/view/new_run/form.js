// What Gradio's fields lack on New run: the sentence beside the field that is wrong, and the meaning of a label on hover or focus.
// The sentences stand as a list in the page (li[data-setting]), so they are there without this file too.

import { makeTips } from "../common/tooltip.js";

export async function mount(root, { fetchJson }) {
  let queued = false;
  const soon = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => {
      queued = false;
      paintProblems();
      markLabels();
    });
  };
  new MutationObserver(soon).observe(document.body, { childList: true, subtree: true });
  soon();
  const { settings } = await fetchJson("glossary");
  const tips = makeTips(document.body, ({ dataset }) => {
    const setting = settings[dataset.tip];
    return setting && { title: setting.label, aside: dataset.tip, text: setting.help, rows: [["Values", setting.facts]] };
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && tips.close());
}

/** Copies each sentence of the list to its field, and takes away those that no longer hold. */
function paintProblems() {
  const wrong = new Map([...document.querySelectorAll("#wb-problems li[data-setting]")].map((item) => [item.dataset.setting, item.dataset.sentence]));
  for (const field of document.querySelectorAll(".wb-field[id^='f-']")) {
    const sentence = wrong.get(field.id.slice(2));
    let note = field.querySelector(":scope > .wb-problem");
    field.classList.toggle("wb-wrong", Boolean(sentence));
    const input = field.querySelector("input, textarea");
    if (!sentence) {
      note?.remove();
      input?.removeAttribute("aria-invalid");
      continue;
    }
    input?.setAttribute("aria-invalid", "true");
    if (!note) {
      note = document.createElement("p");
      note.className = "wb-problem";
      note.setAttribute("role", "alert");
      field.append(note);
    }
    if (note.textContent !== sentence) note.textContent = sentence;
  }
}

function markLabels() {
  for (const label of document.querySelectorAll(".wb-field [data-testid='block-info']:not([data-tip])")) {
    label.dataset.tip = label.closest(".wb-field").id.slice(2);
    label.tabIndex = 0;
  }
}
