// Where a tick goes.

import { DAY, clock, day, partsOf } from "../format.js";

const MINUTE = 60_000;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720].map((minutes) => minutes * MINUTE);
const DAY_STEPS = [1, 2, 7, 14, 28, 56, 91, 182, 364].map((days) => days * DAY);

/** Round values from 0 (or below) to at least `high`: about `count` of them. */
export function valueTicks(low, high, count = 4) {
  const span = high - low || 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough - power * 1e-9);
  const first = Math.floor(low / step);
  const ticks = [];
  for (let i = first; ; i += 1) {
    ticks.push(Number((i * step).toPrecision(12)));
    if (i * step >= high - step * 1e-9) return ticks;
  }
}

/** Moments to label between two times, at most `most`, each with its text: round hours of the browser's zone, or UTC days. */
export function timeTicks(from, to, intervalMs, most) {
  const byDay = intervalMs >= DAY;
  const steps = byDay ? DAY_STEPS : [...STEPS, ...DAY_STEPS];
  const step = steps.find((each) => each >= intervalMs && (to - from) / each <= most) ?? steps.at(-1);
  // Zones lie whole quarters of an hour from UTC; where days change with the season, ticks keep the first one's.
  const { hour, minute } = byDay ? { hour: 0, minute: 0 } : partsOf(from);
  const midnight = Math.floor(from / MINUTE) * MINUTE - (hour * 60 + minute) * MINUTE;
  const origin = byDay ? Math.floor(from / DAY) * DAY : midnight;
  const ticks = [];
  for (let at = origin + Math.ceil((from - origin) / step) * step; at <= to; at += step) {
    const parts = byDay ? null : partsOf(at);
    const isDay = byDay || (parts.hour === 0 && parts.minute === 0);
    ticks.push({ at, text: isDay ? day(at, byDay ? "UTC" : undefined) : clock(at), strong: isDay && !byDay });
  }
  return ticks;
}
