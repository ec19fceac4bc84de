// Which stretch of time: a preset that moves with the clock, or two moments. And the interval that suits it.

import { choice, fill, h } from "../dom.js";
import { DAY, INTERVALS } from "../format.js";

const HOUR = INTERVALS.hour;
export const PRESETS = { "1h": HOUR, "6h": 6 * HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY };
const NAMES = { "1h": "Last hour", "6h": "Last 6 hours", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days", "90d": "Last 90 days" };

/** `{from, to}` in ms of a page's parameters (`range`, or `from` and `to` in ISO 8601), on whole buckets of the interval. */
export function rangeOf(params, fallback = "24h", now = Date.now()) {
  const [from, to] = [Date.parse(params.from), Date.parse(params.to)];
  if (from < to) return { from, to, preset: "custom" };
  const preset = params.range in PRESETS ? params.range : fallback;
  return { from: now - PRESETS[preset], to: now, preset };
}

/** Bounds on whole buckets that hold the range: roll-ups answer for those. */
export function whole({ from, to }, intervalMs) {
  return { from: Math.floor(from / intervalMs) * intervalMs, to: Math.ceil(to / intervalMs) * intervalMs };
}

/** The interval that gives a readable number of buckets. */
export function suits({ from, to }) {
  if (to - from <= 6 * HOUR) return "minute";
  return to - from <= 8 * DAY ? "hour" : "day";
}

/** Intervals that can be drawn for a range. */
export function possible({ from, to }) {
  const names = Object.keys(INTERVALS).filter((name) => (to - from) / INTERVALS[name] <= 3000 && (to - from) / INTERVALS[name] >= 1);
  return names.length ? names : ["day"];
}

export const iso = (at) => new Date(at).toISOString();

/** ms as the value of an input for local times, in the browser's zone. */
function local(at) {
  const moment = new Date(at);
  return iso(at - moment.getTimezoneOffset() * 60_000).slice(0, 16);
}

/** The control. `onchange({range} or {from, to})` gets the parameters to keep. */
export function rangePicker(params, onchange, { fallback = "24h", presets = Object.keys(PRESETS) } = {}) {
  const now = rangeOf(params, fallback);
  const from = h("input", { type: "datetime-local", value: local(now.from), "aria-label": "From" });
  const to = h("input", { type: "datetime-local", value: local(now.to), "aria-label": "To" });
  const custom = h("span.tools", { hidden: now.preset !== "custom" }, from, to);
  const problem = h("span.down", { role: "alert" });
  const change = () => {
    const [a, b] = [new Date(from.value).getTime(), new Date(to.value).getTime()];
    fill(problem, a < b ? "" : "From must lie before to.");
    if (a < b) onchange({ range: null, from: iso(a), to: iso(b) });
  };
  from.addEventListener("change", change);
  to.addEventListener("change", change);
  const select = choice([...presets.map((name) => [name, NAMES[name]]), ["custom", "Between…"]], now.preset, (value) => {
    custom.hidden = value !== "custom";
    if (value === "custom") change();
    else onchange({ range: value, from: null, to: null });
  });
  select.setAttribute("aria-label", "Time range");
  return h("div.tools", select, custom, problem);
}
