// Forecast of a reward at a group size: each group's reward std as a bar, old above new; dead groups, signal, changed winners.

import { h, part, s } from "../common/dom.js";
import { count, fixed, percent } from "../common/format.js";

const MAX_BARS = 64; // with more groups each bar stands for several

/** `onSize(n)` while the slider moves; `onGroup(k)` when a bar is chosen. */
export function makeForecast({ onSize, onGroup }) {
  const element = h("section", { class: "panel lab-forecast", "aria-label": "Forecast" });
  const slider = h("input", { type: "range", min: 2, max: 64, step: 1, "aria-label": "Samples per group", on: { input: () => onSize(Number(slider.value)) } });
  const title = h("h2", {});
  const body = h("div");
  element.append(h("div", { class: "ph" }, title, h("span", { class: "sp" }), slider), body);

  const draw = part(body, (forecast, prefer, label, oldLabel, chosen, exactSize) => {
    if (!forecast) return h("p", { class: "note lab-wait" }, "Run the reward: how many groups would be dead, how strong the signal is, and in which groups another sample is best.");
    const { old, new: now } = forecast;
    const top = Math.max(1e-9, ...now.std, ...(old?.std ?? []));
    const order = now.std.map((_, k) => k).sort((a, b) => now.std[b] - now.std[a] || a - b);
    const before = old && old.std.map((_, k) => k).sort((a, b) => old.std[b] - old.std[a] || a - b);
    const side = (words, one, ranked, look) => h("div", { class: "lab-side" },
      h("span", { class: look === "new" ? "b clip" : "i2 clip" }, words),
      bars(one, ranked, top, look, look === "new" ? forecast.changed : [], chosen, onGroup),
      h("span", { class: "lab-said" }, h("b", {}, `${percent(one.dead)} dead`), saying(one, forecast, look)));
    return [
      h("p", { class: "lab sub" }, `σ of the reward in each of ${count(forecast.groups, "group")}${exactSize ? "" : forecast.stretched ? ", drawn with replacement: rare samples are missing" : ", drawn from these samples"}`),
      old && side(oldLabel, old, before, "old"),
      side(label, now, order, "new"),
      h("dl", { class: "lab-facts" },
        old && fact("Signal", ratio(old.signal, now.signal), "mean |advantage| of a sample, dead groups as 0"),
        old && fact("Other winner", percent(forecast.winners), "groups in which no sample that was best is best now"),
        prefer && fact("Wrong samples pushed up", prefer.old ? `${prefer.old.wrong_up} → ${prefer.new.wrong_up}` : String(prefer.new.wrong_up), `of ${prefer.wrong}`),
        !old && fact("Signal", fixed(now.signal), "mean |advantage| of a sample, dead groups as 0")),
    ];
  });

  return {
    element,
    update({ result, forecast, size, label, oldLabel, chosen }) {
      title.textContent = `Forecast at ${size} samples per group`;
      slider.max = Math.max(64, size);
      if (document.activeElement !== slider) slider.value = size;
      slider.disabled = !result;
      draw.update(forecast, result?.prefer, label, oldLabel, chosen, forecast?.exact);
    },
  };
}

const fact = (name, figure, words) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, figure), " ", h("span", { class: "i3" }, words)));

function ratio(old, now) {
  if (old <= 0) return now > 0 ? `from 0 to ${fixed(now)}` : "none";
  return `× ${fixed(now / old)}`;
}

function saying(one, forecast, look) {
  if (look === "old") return null;
  if (forecast.noise) return `, ${count(forecast.noise, "group has", "groups have")} a tiny σ`;
  const alive = one.std.filter((_, k) => one.dead_share[k] < 0.5);
  return alive.length ? `, weakest σ ${fixed(Math.min(...alive))}` : "";
}

function bars(side, ranked, top, look, changed, chosen, onGroup) {
  const width = 236;
  const height = 72;
  const each = Math.ceil(ranked.length / MAX_BARS);
  const columns = [];
  for (let i = 0; i < ranked.length; i += each) columns.push(ranked.slice(i, i + each));
  const step = width / columns.length;
  const svg = s("svg", { width, height: height + 8, class: `lab-bars ${look}`, role: "img", "aria-label": `${percent(side.dead)} of groups dead` });
  columns.forEach((groups, i) => {
    const mean = groups.reduce((sum, k) => sum + side.std[k], 0) / groups.length;
    const dead = groups.every((k) => side.dead_share[k] > 0.5);
    const tall = Math.max(1.5, (mean / top) * (height - 2));
    const x = i * step;
    const wide = Math.max(1, step - Math.min(1.5, step / 4));
    svg.append(s("g", { class: "bar1", on: { click: () => onGroup(groups[0]) } },
      s("rect", { x, y: 0, width: step, height: height + 8, class: "hit" }, s("title", {}, `${groups.length === 1 ? `Group ${groups[0] + 1}` : `${groups.length} groups`}: σ ${fixed(mean)}${dead ? ", dead" : ""}${groups.some((k) => changed[k]) ? ", another winner" : ""}`)),
      s("rect", { x, y: height - tall, width: wide, height: tall, rx: 0.8, class: dead ? "deadbar" : "alive" }),
      dead && step >= 5 && s("circle", { cx: x + wide / 2, cy: height - 5, r: Math.min(3, wide / 2), class: "deadring" }),
      groups.some((k) => changed[k]) && s("circle", { cx: x + wide / 2, cy: height + 5, r: Math.min(2, wide / 2), class: "changed" }),
      groups.includes(chosen) && s("rect", { x: x - 0.5, y: height - tall - 2, width: wide + 1, height: tall + 3, class: "chosen" })));
  });
  return svg;
}
