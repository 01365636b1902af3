// Elements and text nodes. Everything a page shows goes through here: a value becomes a text node or an attribute, never
// markup, so that text of a model, a data set or a log can neither run nor load anything.

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

/** Redraws `element` only when its values have changed, so that hover and focus survive a poll. */
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

// Characters that are invisible or change how their neighbours are drawn: C0 and C1 controls, direction marks and
// overrides, zero-width joiners, line and paragraph separators.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const code = (character) => `‹U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;

/** Untrusted text with its invisible characters spelled out, at most `limit` characters of it. */
export function visible(text, limit = 20_000) {
  const full = String(text ?? "");
  const shown = full.slice(0, limit).replace(INVISIBLE, code);
  return full.length > limit ? `${shown}… (${(full.length - limit).toLocaleString("en")} more characters)` : shown;
}

/** The first line of a text, short enough for a table cell; line breaks become return marks. */
export const oneLine = (text, limit = 120) => {
  const line = String(text ?? "").slice(0, limit * 2).replace(/\r?\n/g, " ↵ ");
  return line.length > limit ? `${visible(line.slice(0, limit))}…` : visible(line);
};
