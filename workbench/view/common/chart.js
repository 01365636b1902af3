// One small chart around uPlot: lines labelled at their right end, a band, bars, points with their interval. Three ticks an
// axis, one hairline shared by all charts of a page; a click on a step calls `onPick`.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { h, show } from "./dom.js";
import { diamond } from "./dots.js";
import { known } from "./format.js";
import { spread, ticks } from "./scale.js";
import { colour, hatch, onTheme } from "./theme.js";

const LABEL_GAP = 13;
const FONT = '11px "IBM Plex Sans", system-ui, sans-serif';

/**
 * What a chart shows:
 *   x        steps
 *   lines    [{values, colour, width, dash}]            colour is the name of a token, "--accent"
 *   band     {low, high}                                 arrays like values
 *   bars     [{values, colour, hatched}]                 stacked
 *   points   [{x, y, low, high, open}]                   diamonds, with an interval where there is one
 *   rules    [{x, text}]                                 vertical dotted rules, labelled on top
 *   range    [lowest, highest]
 *   tick     value -> text
 *   ends     index -> [{y, text, colour, bold, icon}]    labels at the right end, for the step at that index
 *   marks    [{x, words}]                                steps at which a setting was changed: a pencil at the top
 *   limits   [{y, text}]                                 an alarm's threshold: a dotted line, labelled at its end
 *   words    for screen readers
 */
export function makeChart({ title, sync, onPick }) {
  const heading = h("h3", {}, title, " ", h("span", { class: "i3 sub" }));
  const plot = h("div", { class: "plot" });
  const labels = h("div", { class: "ends", "aria-hidden": "true" });
  const element = h("div", { class: "panel ch" }, heading, h("div", { class: "plotbox" }, plot, labels));
  const sub = heading.querySelector(".sub");
  let picture = null;
  let chart = null;
  let drawn = "";
  let parked = null;

  const ink = (name) => colour(element, name);
  // Width of the longest label at the lines' ends, in steps of 8 px so that one more digit does not rebuild the chart.
  const labelWidth = () => {
    const longest = Math.max(0, ...picture.ends(picture.x.length - 1).map(({ text, icon }) => text.length + (icon ? 2 : 0)));
    return 8 * Math.ceil((longest * 5.8 + 12) / 8);
  };

  function build() {
    chart?.destroy();
    const axis = { stroke: () => ink("--ink3"), font: FONT, ticks: { show: false } };
    chart = new uPlot(
      {
        width: plot.clientWidth || 240,
        height: plot.clientHeight || 120,
        padding: [7, labelWidth(), 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: sync, setSeries: false } },
        scales: { x: { time: false, range: () => [picture.x[0] ?? 0, lastX()] }, y: { range: () => picture.range } },
        axes: [
          { ...axis, size: 18, gap: 3, grid: { show: false }, splits: (u) => ticks(lastX(), u.bbox.width / devicePixelRatio / 34), values: (u, all) => all },
          { ...axis, size: 34, gap: 3, splits: () => middle(picture.range), values: (u, all) => all.map(picture.tick), grid: { stroke: () => ink("--line"), width: 1 } },
        ],
        series: [{}, ...picture.lines.map((line) => ({ stroke: () => ink(line.colour), width: line.width ?? 1.4, dash: line.dash, spanGaps: line.span ?? false, points: { show: (u) => u.data[0].length === 1, size: 5, fill: () => ink(line.colour) } }))],
        hooks: { drawAxes: [under], draw: [above], setCursor: [hover] },
      },
      table(),
      plot,
    );
    chart.over.addEventListener("click", () => {
      const { idx } = chart.cursor;
      if (idx !== null && idx !== undefined) onPick(picture.x[idx]);
    });
  }

  const table = () => [picture.x, ...picture.lines.map((line) => line.values)];
  const lastX = () => Math.max(1, picture.x[picture.x.length - 1] ?? 0, ...picture.points.map((point) => point.x));
  const middle = ([low, high]) => [low, (low + high) / 2, high];

  function under(u) {
    const { ctx } = u;
    const px = devicePixelRatio;
    const at = (x, y) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
    const zero = u.valToPos(picture.range[0], "y", true);
    ctx.save();
    ctx.fillStyle = ink("--line2");
    ctx.fillRect(u.bbox.left, Math.round(zero) - 0.5 * px, u.bbox.width, px);
    if (picture.band) {
      const { low, high } = picture.band;
      const there = picture.x.map((x, i) => i).filter((i) => known(low[i]) && known(high[i]));
      ctx.beginPath();
      for (const i of there) ctx.lineTo(...at(picture.x[i], Math.min(high[i], picture.range[1])));
      for (const i of there.reverse()) ctx.lineTo(...at(picture.x[i], low[i]));
      ctx.fillStyle = ink("--line");
      ctx.fill();
    }
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    const wide = Math.max(px, (u.bbox.width / Math.max(1, lastX())) * 0.7);
    const base = new Array(picture.x.length).fill(0);
    for (const bar of picture.bars) {
      ctx.fillStyle = bar.hatched ? hatch(ctx, ink(bar.colour)) : ink(bar.colour);
      picture.x.forEach((x, i) => {
        const value = bar.values[i];
        if (!known(value) || value <= 0) return;
        const [left, top] = at(x, base[i] + value);
        const bottom = u.valToPos(base[i], "y", true);
        ctx.fillRect(left - wide / 2, top, wide, Math.max(px, bottom - top));
        base[i] += value;
      });
    }
    ctx.restore();
  }

  function above(u) {
    const { ctx } = u;
    const px = devicePixelRatio;
    ctx.save();
    ctx.setLineDash([]); // the last line's would dash the points
    for (const point of picture.points) {
      const x = u.valToPos(point.x, "x", true);
      const y = u.valToPos(point.y, "y", true);
      ctx.lineWidth = 1.2 * px;
      ctx.strokeStyle = ink("--ink");
      if (known(point.low) && known(point.high) && point.high > point.low) {
        ctx.beginPath();
        ctx.moveTo(x, u.valToPos(Math.max(point.low, picture.range[0]), "y", true));
        ctx.lineTo(x, u.valToPos(Math.min(point.high, picture.range[1]), "y", true));
        ctx.globalAlpha = 0.45;
        ctx.stroke();
        ctx.globalAlpha = 1;
      }
      const r = 4 * px;
      ctx.beginPath();
      ctx.moveTo(x, y - r);
      ctx.lineTo(x + r, y);
      ctx.lineTo(x, y + r);
      ctx.lineTo(x - r, y);
      ctx.closePath();
      ctx.fillStyle = ink(point.open ? "--surface" : "--ink");
      ctx.fill();
      ctx.strokeStyle = ink(point.open ? "--ink" : "--surface");
      ctx.stroke();
    }
    for (const { y } of picture.limits) {
      const at = Math.round(u.valToPos(y, "y", true)) + 0.5;
      ctx.setLineDash([2 * px, 3 * px]);
      ctx.strokeStyle = ink("--ink3");
      ctx.lineWidth = px;
      ctx.beginPath();
      ctx.moveTo(u.bbox.left, at);
      ctx.lineTo(u.bbox.left + u.bbox.width, at);
      ctx.stroke();
      ctx.setLineDash([]);
    }
    for (const { x } of picture.marks) pencil(ctx, u.valToPos(x, "x", true), u.bbox.top, px);
    for (const rule of picture.rules) {
      const x = Math.round(u.valToPos(rule.x, "x", true)) + 0.5;
      ctx.strokeStyle = ink("--ink3");
      ctx.lineWidth = px;
      ctx.setLineDash([2 * px, 3 * px]);
      ctx.beginPath();
      ctx.moveTo(x, u.bbox.top);
      ctx.lineTo(x, u.bbox.top + u.bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.fillStyle = ink("--ink3");
      ctx.textAlign = "left";
      ctx.textBaseline = "alphabetic";
      ctx.font = FONT.replace("11px", `${11 * px}px`);
      ctx.fillText(rule.text, x + 4 * px, u.bbox.top + 10 * px);
    }
    if (parked !== null) {
      ctx.fillStyle = ink("--ink");
      ctx.fillRect(Math.round(u.valToPos(parked, "x", true)), u.bbox.top, px, u.bbox.height);
    }
    ctx.restore();
    labelEnds(picture.x.length - 1);
  }

  // The mark of a changed setting, as on the ribbon, with a hairline below it.
  function pencil(ctx, x, top, px) {
    ctx.strokeStyle = ink("--ink2");
    ctx.fillStyle = ink("--surface");
    ctx.lineWidth = px;
    ctx.globalAlpha = 0.55;
    ctx.setLineDash([px, 2 * px]);
    ctx.beginPath();
    ctx.moveTo(Math.round(x) + 0.5, top + 10 * px);
    ctx.lineTo(Math.round(x) + 0.5, top + 34 * px);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.globalAlpha = 1;
    ctx.beginPath();
    for (const [dx, dy] of [[-3.5, 8], [-2.5, 4.5], [2.5, -0.5], [5, 2], [0, 7]]) ctx.lineTo(x + dx * px, top + dy * px);
    ctx.closePath();
    ctx.fill();
    ctx.stroke();
  }

  function hover(u) {
    const { idx } = u.cursor;
    const over = idx !== null && idx !== undefined && u.cursor.left >= 0;
    const change = over && picture.marks.find(({ x }) => x === picture.x[idx]);
    sub.textContent = over ? `step ${picture.x[idx]}${change ? ` · ${change.words}` : ""}` : picture.sub;
    labelEnds(over ? idx : picture.x.length - 1);
  }

  // Labels keep their places at the lines' ends; while the pointer is over another step they show its values.
  function labelEnds(index) {
    if (!chart || index < 0) return show(labels);
    const last = picture.ends(picture.x.length - 1);
    const shown = picture.ends(index);
    const order = last.map((_, i) => i).filter((i) => known(last[i].y)).sort((a, b) => last[b].y - last[a].y);
    const top = 7;
    const bottom = chart.bbox.height / devicePixelRatio + top;
    const places = spread(order.map((i) => chart.valToPos(last[i].y, "y") + top), LABEL_GAP, 6, bottom);
    const left = (chart.bbox.left + chart.bbox.width) / devicePixelRatio + 7;
    show(labels, order.map((i, k) => h("span", { class: shown[i].bold ? "b" : "", style: { top: `${Math.round(places[k])}px`, left: `${Math.round(left)}px`, color: `var(${shown[i].colour})` } }, shown[i].icon && diamond(shown[i].icon === "open"), shown[i].text)));
  }

  function nothing(words) {
    chart?.destroy();
    chart = null;
    show(labels);
    show(plot, h("p", { class: "note empty" }, words));
  }

  const observer = new ResizeObserver(() => {
    if (!chart || !plot.clientWidth) return;
    chart.setSize({ width: plot.clientWidth, height: plot.clientHeight });
  });
  observer.observe(plot);
  onTheme(() => chart?.redraw(false, true));

  return {
    element,
    /** Show `next` (see above); `step` is the parked step, null when live. */
    update(next, step) {
      picture = { lines: [], bars: [], points: [], marks: [], rules: [], limits: [], band: null, sub: "", ...next };
      const { ends, limits } = picture;
      picture.ends = (index) => [...ends(index), ...limits.map(({ y, text }) => ({ y, text, colour: "--ink3" }))];
      parked = step;
      sub.textContent = picture.sub;
      element.setAttribute("aria-label", picture.words);
      element.setAttribute("role", "group");
      const kind = JSON.stringify([picture.lines.map(({ colour, width, dash }) => [colour, width, dash]), labelWidth()]);
      if (!picture.x.length) return nothing("After the first step.");
      if (!picture.bars.length && !picture.lines.some((line) => line.values.some(known))) return nothing("Not recorded in this run.");
      if (kind !== drawn || !chart) {
        show(plot);
        drawn = kind;
        build();
      } else chart.setData(table());
    },
    destroy() {
      observer.disconnect();
      chart?.destroy();
    },
  };
}
