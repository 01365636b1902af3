// Colours for canvas: the custom properties of wb.css as the current theme resolves them, and a call when the theme changes.

const cache = new Map();
const listeners = new Set();

/** The colour that `var(name)` has on `element`, as the browser computed it (light-dark() resolved). */
export function colour(element, name) {
  if (!cache.has(name)) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    probe.hidden = true;
    element.append(probe);
    cache.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return cache.get(name);
}

/** Call `redraw` whenever the page turns dark or light. */
export const onTheme = (redraw) => listeners.add(redraw);

function turned() {
  cache.clear();
  for (const redraw of listeners) redraw();
}

const watcher = new MutationObserver(turned);
const marks = { attributes: true, attributeFilter: ["class", "data-theme"] };
watcher.observe(document.documentElement, marks);
watcher.observe(document.body, marks);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", turned);

/** A diagonal hatch for canvas: the mark of "all wrong". */
export function hatch(context, colour, pixels = devicePixelRatio) {
  const size = Math.round(4 * pixels);
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const draw = tile.getContext("2d");
  draw.strokeStyle = colour;
  draw.lineWidth = 1.2 * pixels;
  for (const shift of [-size, 0, size]) {
    draw.moveTo(shift - 1, size + 1);
    draw.lineTo(shift + size + 1, -1);
  }
  draw.stroke();
  return context.createPattern(tile, "repeat");
}
