// Elements and text nodes. Everything the reader shows goes through here: a value becomes a text node or an attribute,
// never markup, so nothing that a model, a dataset or a log wrote can run or load anything.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An HTML element: `h("p", {class: "note", on: {click}}, "text", child)`. Absent attributes and children are left out. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Replace all children of `element`. */
export function show(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Redraw a part only when what it shows has changed: what the pointer rests on or the focus is in stays as it is. */
export function part(element, draw) {
  let shown;
  return {
    element,
    update(...values) {
      const key = JSON.stringify(values);
      if (key === shown) return;
      shown = key;
      keepingFocus(element, () => show(element, draw(...values)));
    },
  };
}

/** Run `change` and give the focus back to the element with the same data-key, where it is still there. */
export function keepingFocus(root, change) {
  const key = root.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
  change();
  if (key) root.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// What has no shape of its own, or would change the shape of its neighbours: C0 and C1 controls, direction marks and
// overrides, zero-width joints, line and paragraph separators.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const code = (character) => `‹U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;

/** Untrusted text with its invisible characters spelled out, at most `limit` characters of it. */
export function visible(text, limit = 20_000) {
  const whole = String(text ?? "");
  const kept = whole.length > limit ? whole.slice(0, limit) : whole;
  const seen = kept.replace(UNSEEN, code);
  return whole.length > limit ? `${seen}… (${(whole.length - limit).toLocaleString("en")} more characters)` : seen;
}

/** The first line of a text, short enough for a table cell; line breaks become return marks. */
export const oneLine = (text, limit = 120) => {
  const whole = String(text ?? "").slice(0, limit * 2).replace(/\r?\n/g, " ↵ ");
  return whole.length > limit ? `${visible(whole.slice(0, limit))}…` : visible(whole);
};
