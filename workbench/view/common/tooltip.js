// Tooltips: anything with data-tip opens a card after 250 ms of hover, on keyboard focus, or on a tap (then as a sheet at the
// bottom). Esc closes it. The card never covers its anchor.

import { h, show } from "./dom.js";

const DELAY = 250;
const GAP = 8;
let cards = 0;

/** An underlined word with a tooltip: `term("entropy", "Entropy")`. */
export const term = (name, ...words) => h("span", { class: "q", tabindex: 0, "data-tip": name, "data-key": `tip-${name}` }, words);

/**
 * Tooltips of everything below `root`. `describe(anchor)` gives {title, aside, text, formula: [lines], rows: [[name, words]]}, each
 * optional and plain text, or null for no tooltip.
 */
export function makeTips(root, describe) {
  const card = h("div", { class: "tip", role: "tooltip", id: `wb-tip-${++cards}`, hidden: true });
  root.append(card);
  let anchor = null;
  let timer = null;

  function open(target) {
    const content = describe(target);
    if (!content) return;
    close();
    anchor = target;
    anchor.setAttribute("aria-describedby", card.id);
    show(card, body(content));
    card.hidden = false;
    place();
  }

  function close() {
    clearTimeout(timer);
    anchor?.removeAttribute("aria-describedby");
    anchor = null;
    card.hidden = true;
  }

  function place() {
    if (matchMedia("(max-width: 600px)").matches) return card.style.removeProperty("inset"); // a sheet: wb.css places it
    const at = anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = card;
    const below = at.bottom + GAP + height <= innerHeight || at.top < height + GAP;
    const left = Math.max(GAP, Math.min(at.left, innerWidth - width - GAP));
    const top = below ? at.bottom + GAP : at.top - GAP - height;
    card.style.setProperty("inset", `${Math.round(top)}px auto auto ${Math.round(left)}px`);
  }

  const anchorOf = (event) => event.target.closest?.("[data-tip]");
  root.addEventListener("pointerover", (event) => {
    const target = anchorOf(event);
    if (event.pointerType === "touch" || target === anchor) return;
    clearTimeout(timer);
    if (target) timer = setTimeout(() => open(target), DELAY);
    else if (!card.contains(event.target)) timer = setTimeout(close, 120);
  });
  root.addEventListener("pointerleave", () => (timer = setTimeout(close, 120)));
  root.addEventListener("focusin", (event) => {
    const target = anchorOf(event);
    if (target?.matches(":focus-visible")) open(target);
    else if (anchor && !anchor.contains(event.target)) close();
  });
  root.addEventListener("click", (event) => {
    const target = anchorOf(event);
    if (target && matchMedia("(hover: none)").matches) open(target);
    else if (!card.contains(event.target)) close();
  });
  addEventListener("scroll", () => anchor && close(), { passive: true, capture: true });

  return {
    close,
    open,
    get isOpen() {
      return !card.hidden;
    },
    /** Close a card whose anchor is no longer on the page. */
    tidy: () => anchor && !anchor.isConnected && close(),
  };
}

function body({ title, aside, text, formula, rows }) {
  return [
    title && h("h4", {}, title, aside && h("span", { class: "i3" }, aside)),
    text && h("p", {}, text),
    formula?.length > 0 && h("pre", { class: "f" }, formula.join("\n")),
    rows?.length > 0 && h("dl", {}, rows.map(([name, words]) => [h("dt", {}, name), h("dd", {}, words)])),
  ];
}
