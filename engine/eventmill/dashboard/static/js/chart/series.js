// A time series as SVG: lines, stacked areas or stacked bars; legend, tooltip, and a cursor for mouse, touch and arrow keys.

import { fill, h, s } from "../dom.js";
import { compact, label, moment, number, share, utc } from "../format.js";
import { timeTicks, valueTicks } from "./scale.js";

const PAD = { top: 10, right: 8, bottom: 24 };
const COLOURS = 10;

/**
 * `series`: `[{name, values, colour?, past?}]`, a value per entry of `times` (ms), null where there is none; `past` marks the
 * series of an earlier time that others are compared with. `kind`: line, area or bar. `openFrom`: buckets from this time on
 * are not complete yet and are drawn so; `expected` has the share that each still waits for, where that is known. `boundary`: nothing, or the time before which the lake answers.
 */
export function seriesChart({ title, times, series, intervalMs, kind = "line", format = number, openFrom = Infinity, expected = new Map(), height = 260, legend = true, interval }) {
  const colours = series.map((each, i) => `s${each.colour ?? i % COLOURS}`);
  const hidden = new Set();
  const plot = h("div.plot", { tabindex: "0", role: "slider", "aria-label": `${title}. Arrow keys read the values.`,
    "aria-valuemin": "0", "aria-valuemax": String(Math.max(times.length - 1, 0)), "aria-valuenow": "0", "aria-valuetext": summary() });
  const tip = h("div.tip", { hidden: true });
  const keys = h("ul.legend", { hidden: !legend || series.length < 2 });
  const box = h("div.chart", plot, tip, keys);
  let width = 0;
  let place = null; // of the cursor: an index of times
  let frame = null;

  const shownSeries = () => series.map((each, i) => ({ ...each, index: i })).filter(({ index }) => !hidden.has(index));

  function when(i) {
    return moment(times[i], interval);
  }

  function summary() {
    return `${series.length === 1 ? "" : `${series.length} series, `}${times.length} points${times.length ? ` from ${when(0)} to ${when(times.length - 1)}` : ""}`;
  }

  function layers() {
    const stacks = kind !== "line";
    const base = times.map(() => 0);
    return shownSeries().map((each) => {
      if (!stacks || each.past) return { ...each, low: times.map(() => 0), high: each.values };
      const low = [...base];
      each.values.forEach((value, i) => { base[i] += value ?? 0; });
      return { ...each, low, high: each.values.map((value, i) => (value === null ? null : low[i] + value)) };
    });
  }

  function draw() {
    width = plot.clientWidth;
    if (!width || !times.length) return;
    const found = layers();
    const values = found.flatMap(({ high }) => high).filter((value) => value !== null);
    const ticks = valueTicks(Math.min(0, ...values), Math.max(...values, 1e-9), height < 160 ? 2 : 4);
    const left = Math.max(...ticks.map((tick) => (format === number ? compact : format)(tick).length)) * 6.6 + 12;
    const [low, high] = [ticks[0], ticks.at(-1)];
    const bottom = height - PAD.bottom;
    const right = width - PAD.right;
    const end = times.at(-1) + (kind === "bar" ? intervalMs : 0);
    const span = end - times[0] || 1;
    const x = (at) => left + ((at - times[0]) / span) * (right - left);
    const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - PAD.top);
    frame = { x, y, left, right, bottom, found };
    const parts = [];
    if (openFrom < end) {
      const first = times.find((at) => at + intervalMs > openFrom) ?? end;
      const from = Math.max(x(kind === "bar" ? first : Math.max(openFrom, times[0])), left);
      parts.push(s("rect.later", { x: from, y: PAD.top, width: Math.max(right - from, 0), height: bottom - PAD.top }));
    }
    for (const tick of ticks) {
      parts.push(s("line", { class: tick === 0 ? "base" : "gridline", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
      parts.push(s("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, (format === number ? compact : format)(tick)));
    }
    for (const tick of timeTicks(times[0], end, intervalMs, Math.max(Math.floor((right - left) / 84), 2))) {
      const at = Math.min(Math.max(x(tick.at), left + 10), right - 14);
      parts.push(s("text", { x: at, y: height - 6, "text-anchor": "middle", "font-weight": tick.strong ? 650 : null }, tick.text));
    }
    for (const layer of kind === "line" ? [...found].reverse() : found) parts.push(...shape(layer, x, y, bottom));
    parts.push(s("g", { class: "at" }));
    fill(plot, s("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" }, parts));
    if (place !== null) point(place);
  }

  function shape(layer, x, y) {
    const colour = colours[layer.index];
    const isOpen = (i) => times[i] + intervalMs > openFrom;
    if (kind === "bar" && !layer.past) {
      const slot = x(times[0] + intervalMs) - x(times[0]);
      const gap = slot > 6 ? Math.min(slot * 0.22, 10) : slot > 2 ? 1 : 0;
      return layer.high.map((value, i) => {
        if (value === null || value === layer.low[i]) return null;
        const [top, foot] = [y(Math.max(value, layer.low[i])), y(Math.min(value, layer.low[i]))];
        return s("rect", { class: `bar ${colour}${isOpen(i) ? " open" : ""}`, x: x(times[i]) + gap / 2, y: top, width: Math.max(slot - gap, 0.6), height: Math.max(foot - top, 0.5) });
      }).filter(Boolean);
    }
    const drawn = [];
    const at = (i, values) => `${x(times[i]).toFixed(1)},${y(values[i]).toFixed(1)}`;
    for (const run of runs(layer.high)) {
      const firstOpen = run.findIndex(isOpen);
      const closed = firstOpen < 0 ? run : run.slice(0, firstOpen);
      const open = firstOpen < 0 ? [] : run.slice(Math.max(firstOpen - 1, 0));
      const both = kind === "area" || (found1(layer) && !layer.past);
      if (both && run.length > 1) {
        const back = [...run].reverse().map((i) => at(i, layer.low));
        drawn.push(s("path", { class: `area ${colour}${kind === "area" ? " full" : ""}`, d: `M${run.map((i) => at(i, layer.high)).join("L")}L${back.join("L")}Z` }));
      }
      for (const [part, state] of [[closed, ""], [open, " open"]]) {
        if (part.length > 1) drawn.push(s("path", { class: `path ${colour}${layer.past ? " past" : ""}${state}`, d: `M${part.map((i) => at(i, layer.high)).join("L")}` }));
      }
      if (run.length === 1) drawn.push(s("circle", { class: `dot ${colour}`, cx: x(times[run[0]]), cy: y(layer.high[run[0]]), r: 3.5 }));
    }
    return drawn;
  }

  const found1 = () => kind === "line" && shownSeries().filter(({ past }) => !past).length === 1;

  /** Put the cursor at a bucket, or nowhere. */
  function point(i) {
    place = i;
    const mark = plot.querySelector(".at");
    if (!mark || !frame) return;
    fill(mark);
    tip.hidden = i === null;
    if (i === null) return;
    const half = kind === "bar" ? intervalMs / 2 : 0;
    const x = frame.x(times[i] + half);
    mark.append(s("line.cursor", { x1: x, x2: x, y1: PAD.top, y2: frame.bottom }));
    for (const layer of kind === "bar" ? [] : frame.found) {
      if (layer.high[i] !== null) mark.append(s("circle", { class: `dot ${colours[layer.index]}`, cx: x, cy: frame.y(layer.high[i]), r: 4 }));
    }
    const missing = expected.get(times[i]);
    const open = times[i] + intervalMs > openFrom && (missing ? `not complete yet, about ${share(missing, 1)} still expected` : "not complete yet");
    const rows = frame.found.filter(({ values }) => values[i] !== null).sort((a, b) => b.values[i] - a.values[i]);
    fill(tip, h("div.when", when(i), open && ` · ${open}`), rows.slice(0, 12).map((layer) =>
      h("div.item", h(`i.swatch.${colours[layer.index]}`), h("span", layer.name), h("strong", format(layer.values[i])))),
      !rows.length && h("div.when", "no value"), rows.length > 12 && h("div.when", `and ${rows.length - 12} more`));
    const side = x > width / 2 ? x - tip.offsetWidth - 14 : x + 14;
    tip.style.transform = `translate(${Math.max(side, 0)}px, ${PAD.top + 4}px)`;
    plot.setAttribute("aria-valuenow", String(i));
    plot.setAttribute("aria-valuetext", `${when(i)}, ${utc(times[i])}: ${rows.map(({ name, values }) => `${name} ${format(values[i])}`).join(", ") || "no value"}${open ? `, ${open}` : ""}`);
  }

  function nearest(event) {
    if (!frame) return null;
    const { left } = plot.getBoundingClientRect();
    const share = (event.clientX - left - frame.left) / (frame.right - frame.left);
    const steps = kind === "bar" ? times.length : times.length - 1;
    const i = kind === "bar" ? Math.floor(share * steps) : Math.round(share * steps);
    return Math.min(Math.max(i, 0), times.length - 1);
  }

  function key(event) {
    const last = times.length - 1;
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10 }[event.key];
    if (step !== undefined) point(Math.min(Math.max((place ?? (step > 0 ? -1 : last + 1)) + step, 0), last));
    else if (event.key === "Home") point(0);
    else if (event.key === "End") point(last);
    else if (event.key === "Escape") point(null);
    else return;
    event.preventDefault();
  }

  if (times.length) {
    plot.addEventListener("pointermove", (event) => point(nearest(event)));
    plot.addEventListener("pointerleave", () => point(null));
    plot.addEventListener("keydown", key);
    plot.addEventListener("blur", () => point(null));
  }
  fill(keys, series.map(({ name }, i) => h("li", h("button", { type: "button", "aria-pressed": "true", onclick: ({ currentTarget }) => {
    if (hidden.has(i)) hidden.delete(i);
    else hidden.add(i);
    currentTarget.setAttribute("aria-pressed", String(!hidden.has(i)));
    draw();
  } }, h(`i.swatch.${colours[i]}`), label(name)))));
  new ResizeObserver(() => { if (plot.clientWidth !== width) draw(); }).observe(plot);
  return box;
}

/** Runs of indices without a null between them. */
function runs(values) {
  const found = [];
  let run = [];
  values.forEach((value, i) => {
    if (value === null) { if (run.length) found.push(run); run = []; } else run.push(i);
  });
  if (run.length) found.push(run);
  return found;
}
