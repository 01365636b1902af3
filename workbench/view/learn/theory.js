// The Theory page: where training must converge by the published formulas (lines over β) and where it does (dots). One JSON route;
// the check runs in the background, and its result is saved until the code changes.

import { h, oneLine, part, s, show } from "../common/dom.js";
import { count, duration, fixed, short, signed } from "../common/format.js";
import { poll } from "../common/poller.js";
import { spread } from "../common/scale.js";

const HEIGHT = 204;
const narrow = () => matchMedia("(max-width: 600px)").matches;
const BETAS = [0.1, 0.5, 2];

export async function mount(element, { fetchJson, postJson }) {
  const lost = h("div", { class: "lost", role: "status", hidden: true });
  const head = h("div", { class: "wb-theory-head" });
  const body = h("div", {}, h("p", { class: "missing", role: "status" }, "Drawing the published formulas…"));
  show(element, lost, head, body);
  let problem = "";

  const start = postJson && (async () => {
    problem = "";
    await postJson("theory", {}).catch((error) => (problem = error.message));
    poller.now();
  });
  const heads = part(head, (check, words) => top(check, words, start));
  const bodies = part(body, (check) => [pictures(check), check.rows && table(check)]);
  const poller = poll(async () => {
    const check = await fetchJson("theory");
    heads.update({ ...check, rows: undefined, curves: undefined, ...verdict(check), age: check.made ? Math.round((Date.now() / 1000 - check.made) / 60) : null }, problem);
    bodies.update(check);
    return check.state === "running" ? 1 : 30;
  }, (seconds) => {
    lost.hidden = seconds === null;
    lost.textContent = seconds === null ? "" : `Not connected. Trying again in ${seconds} s.`;
  });
}

function verdict({ rows, tolerance }) {
  if (!rows) return { total: 0 };
  const worst = Math.max(...rows.map((row) => Math.abs(row.difference)));
  return { total: rows.length, worst, off: rows.filter((row) => !(Math.abs(row.difference) <= tolerance)).length };
}

function top({ state, total, worst, off, tolerance, seconds, age }, problem, start) {
  const running = state === "running";
  const claim = !total
    ? running ? "Checking: bandits train until they converge." : "Does training converge to where theory says it must?"
    : off ? `Not where theory says: ${off} of ${count(total, "figure")} ${off === 1 ? "is" : "are"} off by more than ${short(tolerance)}.` : `Training converges to where theory says: ${count(total, "figure")}, worst difference ${fixed(worst, 3)}.`;
  const note = [
    running ? "The check is running; it takes some seconds. " : state === "failed" ? "The last check failed: run `workbench doctor --theory` to see why. " : "",
    state === "old" ? "These figures were made by another version of the code. " : "",
    !total && !running ? "The lines are the published formulas. The check adds the dots: where training converges." : "",
    total && !running ? `Checked ${age < 1 ? "just now" : `${duration(60 * age)} ago`} in ${duration(seconds)}.` : "",
  ].join("");
  return [
    h("div", { class: "verdict" }, h("h1", { role: "status" }, claim),
      h("p", { class: "i2" }, "One prompt, one-token completions, exact expectations or sampled groups: advantages and token gradients come from the functions that train models, and only the logits are trained. p is the probability of the better completion at convergence, for each β.")),
    h("div", { class: "wb-theory-acts" },
      problem && h("span", { class: "note bad", role: "status" }, oneLine(problem, 200)),
      h("span", { class: "i3" }, note),
      start && h("button", { type: "button", class: `btn ${total ? "" : "pri"}`, disabled: running, "data-key": "check", on: { click: start } }, running ? "Checking…" : total ? "Check again" : "Run the check, about 5 s")),
  ];
}

const pictures = (check) => h("div", { class: "wb-theory-grid" }, Object.entries(check.panels).map(([name, words]) => {
  const curves = check.curves.filter((curve) => curve.panel === name);
  return h("figure", { class: "panel" }, h("h2", {}, name), draw(name, curves, check.beta_range, Boolean(check.rows)), h("figcaption", { class: "i2" }, words));
}));

/** Lines over a logarithmic β axis, named at their right ends; after a check, dots where training converged. */
function draw(name, curves, [low, high], checked) {
  const width = narrow() ? 332 : 420; // about as wide as it is shown, so that letters keep their size
  const AREA = { left: 26, right: width - 134, top: 8, bottom: HEIGHT - 24 };
  const x = (beta) => AREA.left + ((AREA.right - AREA.left) * Math.log(beta / low)) / Math.log(high / low);
  const y = (p) => AREA.bottom - (AREA.bottom - AREA.top) * p;
  const lines = curves.filter((curve) => curve.closed_form.length).sort((a, b) => b.closed_form.at(-1) - a.closed_form.at(-1));
  const tops = spread(lines.map((curve) => y(curve.closed_form.at(-1))), 14, AREA.top, AREA.bottom);
  const reached = curves.flatMap((curve) => curve.reached.map(([beta, p]) => ({ beta, p, sampled: curve.sampled })));
  const look = (curve) => (checked && !curve.reached.length ? "fails" : "");
  return s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "wb-theory-chart", role: "img", "aria-label": `${name}: ${lines.map((curve) => curve.name).join(", ")}; ${checked ? `${count(reached.length, "end point")} on the lines` : "not checked yet"}` },
    [0, 0.5, 1].map((p) => [s("line", { class: p ? "grid" : "zero", x1: AREA.left, x2: AREA.right, y1: y(p), y2: y(p) }), s("text", { class: "axis", x: AREA.left - 6, y: y(p) + 4, "text-anchor": "end" }, p === 0.5 ? ".5" : String(p))]),
    BETAS.map((beta) => s("text", { class: "axis", x: x(beta), y: HEIGHT - 8, "text-anchor": "middle" }, beta === 0.1 ? "β = .1" : short(beta, 1).replace(/\.0$/, ""))),
    [...new Set(curves.map((curve) => curve.pi_ref))].map((p) => [s("line", { class: "ref", x1: AREA.left, x2: AREA.right, y1: y(p), y2: y(p) }), s("text", { class: "axis", x: AREA.left + 4, y: y(p) - 4 }, `reference ${short(p)}`)]),
    lines.map((curve, i) => {
      const end = y(curve.closed_form.at(-1));
      return [
        s("polyline", { class: `line ${look(curve)}`, points: curve.beta.map((beta, j) => `${x(beta).toFixed(1)},${y(curve.closed_form[j]).toFixed(1)}`).join(" ") }),
        s("line", { class: "lead", x1: AREA.right + 1, y1: end, x2: AREA.right + 8, y2: tops[i] }),
        s("text", { class: `name ${look(curve)}`, x: AREA.right + 11, y: tops[i] + 4 }, curve.name),
      ];
    }),
    reached.map(({ beta, p, sampled }) => s("circle", { class: sampled ? "dot sampled" : "dot", cx: x(beta), cy: y(p), r: 3.4 }, s("title", {}, `β = ${beta}: p = ${p.toFixed(4)}${sampled ? ", sampled groups" : ""}`))));
}

function table({ rows, tolerance }) {
  return h("details", { class: "panel wb-theory-all" }, h("summary", {}, `All ${count(rows.length, "comparison")}`, h("span", { class: "i3" }, " with their differences; open dots in the plots are sampled groups")),
    h("div", { class: "wb-theory-scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Setting", "Closed form", "Reached", "Difference"].map((words) => h("th", { scope: "col" }, words)))),
      h("tbody", {}, rows.map((row) => h("tr", { class: Math.abs(row.difference) <= tolerance ? "" : "off" },
        h("td", {}, row.setting), h("td", {}, fixed(row.closed_form, 4)), h("td", {}, fixed(row.reached, 4)),
        h("td", {}, `${signed(row.difference, 4)}${Math.abs(row.difference) <= tolerance ? "" : " off"}`)))))));
}
