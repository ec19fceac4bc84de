// Numbers, times, and what they are called.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const fine = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
export const INTERVALS = { minute: MINUTE, hour: HOUR, day: DAY };

/** 1,234,567.89; a dash where there is nothing. */
export function number(value) {
  return value === null || value === undefined ? "–" : plain.format(value);
}

/** 1.2M */
export function compact(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 10_000 ? plain.format(value) : short.format(value);
}

/** 12.3%; a dash where there is no whole. */
export function share(part, whole) {
  if (!whole) return "–";
  const value = part / whole;
  return value !== 0 && Math.abs(value) < 0.01 ? fine.format(value) : percents.format(value);
}

/** 1.4 GB */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** 250 ms, 4.2 s, 3 min 20 s, 5 h 10 min, 3 d 4 h */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${ms < 10 ? plain.format(ms) : Math.round(ms)} ms`;
  if (ms < MINUTE) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  const units = [["d", DAY], ["h", HOUR], ["min", MINUTE], ["s", 1000]];
  const first = units.findIndex(([, size]) => ms >= size);
  const [[big, size], next] = [units[first], units[first + 1]];
  const rest = next ? Math.floor((ms % size) / next[1]) : 0;
  return `${Math.floor(ms / size)} ${big}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

const DATE = { month: "short", day: "numeric" };
const TIME = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

function formatter(options, timeZone) {
  return new Intl.DateTimeFormat("en-GB", { ...options, timeZone });
}

const makers = new Map();

/** A moment by these options of Intl, in the browser's zone or another. */
function shown(at, key, options, zone = ZONE) {
  const name = `${key}/${zone}`;
  if (!makers.has(name)) makers.set(name, formatter(options, zone));
  return makers.get(name).format(at);
}

/** 23 Nov 14:05 (seconds if there are any to show). Days are UTC days, as the engine counts them. */
export function moment(at, interval = "minute") {
  if (interval === "day") return shown(at, "weekday", { weekday: "short", ...DATE }, "UTC");
  if (interval === "second") return shown(at, "second", { ...DATE, ...TIME, second: "2-digit" });
  return shown(at, "minute", { ...DATE, ...TIME });
}

/** 14:05 */
export function clock(at) {
  return shown(at, "clock", TIME);
}

/** 23 Nov */
export function day(at, zone) {
  return shown(at, "date", DATE, zone);
}

/** 2026-11-23 14:05 UTC */
export function utc(at) {
  return `${new Date(at).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** 4 s ago */
export function ago(at, now = Date.now()) {
  return now - at < 1000 ? "just now" : `${duration(now - at)} ago`;
}

/** The hour of a moment in the browser's zone (0 to 23), and whether a day begins there. */
export function partsOf(at, zone = ZONE) {
  const text = shown(at, "parts", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, zone);
  return { hour: Number(text.slice(0, 2)), minute: Number(text.slice(3, 5)) };
}

/** What a value is called; an event without it has null. */
export function label(value) {
  return value === null || value === undefined || value === "" ? "(not set)" : String(value);
}
