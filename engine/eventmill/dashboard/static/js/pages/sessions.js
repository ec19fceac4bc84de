// Sessions: how many, how long, how many end after one event.

import { records, sql } from "../api.js";
import { seriesChart } from "../chart/series.js";
import { meters } from "../chart/small.js";
import { fill, h } from "../dom.js";
import { INTERVALS, compact, duration, moment, number, share } from "../format.js";
import { card, figure, head, origin } from "../parts/page.js";
import { rangeOf, rangePicker, suits, whole } from "../parts/range.js";
import { empty, show } from "../parts/states.js";
import { storeOf, storePicker, within } from "../parts/store.js";
import { table } from "../parts/table.js";

const LENGTHS = [["under 10 s", 10], ["10 s to 1 min", 60], ["1 to 5 min", 300], ["5 to 15 min", 900], ["15 to 60 min", 3600], ["over an hour", Infinity]];
const LONGEST = 50;

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const result = h("div.stack");
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };

  function draw() {
    return show(result, async (mine) => {
      const from = storeOf(state);
      const range = rangeOf(state);
      const step = INTERVALS[suits(range)];
      const bounds = whole(range, step);
      const sessions = `SELECT session_id, any(device_id) AS device, max(user_id) AS user, min(timestamp) AS started, count() AS events, dateDiff('millisecond', min(timestamp), max(timestamp)) AS length FROM ${from} WHERE ${within(from)} GROUP BY session_id`;
      const bucket = `intDiv(toUnixTimestamp64Milli(started), ${step}) * ${step}`;
      const buckets = LENGTHS.map(([, top], i) => `countIf(length >= ${i ? LENGTHS[i - 1][1] * 1000 : 0}${top === Infinity ? "" : ` AND length < ${top * 1000}`}) AS l${i}`);
      const [totals, series, longest] = await Promise.all([
        sql(`SELECT count() AS sessions, countIf(events = 1) AS bounced, avg(events) AS each, quantiles(0.5, 0.95)(length) AS lengths, uniq(device) AS devices, ${buckets.join(", ")} FROM (${sessions})`, mine, bounds),
        sql(`SELECT ${bucket} AS bucket, count() AS sessions FROM (${sessions}) GROUP BY bucket ORDER BY bucket`, mine, bounds),
        sql(`SELECT started, device, user, events, length FROM (${sessions}) ORDER BY length DESC LIMIT ${LONGEST}`, mine, bounds)]);
      return drawn(records(totals)[0], series, longest, bounds, suits(range));
    }, signal);
  }

  fill(root, head("Sessions", "Visits, divided by 30 minutes of silence unless configured otherwise", storePicker(state, changed), rangePicker(state, changed)), result);
  draw();
}

function drawn(total, series, longest, bounds, interval) {
  if (!Number(total.sessions)) return h("section.card", empty("No sessions in this time", "Take a longer time range, or the other store."));
  const step = INTERVALS[interval];
  const times = Array.from({ length: Math.ceil((bounds.to - bounds.from) / step) }, (_, i) => bounds.from + i * step);
  const known = new Map(series.rows.map(([bucket, amount]) => [Number(bucket), Number(amount)]));
  return [
    h("div.grid.figures", [
      figure("Sessions", compact(Number(total.sessions)), `of ${compact(Number(total.devices))} devices`),
      figure("Length, median", duration(total.lengths[0]), `95 of 100 are shorter than ${duration(total.lengths[1])}`),
      figure("Events each", total.each.toFixed(1), "on average"),
      figure("Bounced", share(Number(total.bounced), Number(total.sessions)), "ended after one event")]),
    h("div.grid", h("section.card.w8", h("h2", `Sessions begun by ${interval}`), seriesChart({ title: `Sessions begun by ${interval}`, kind: "bar", times, intervalMs: step, interval, openFrom: Date.now(), series: [{ name: "sessions begun", values: times.map((at) => known.get(at) ?? 0), colour: 4 }] })),
      h("section.card.w4", h("h2", "By length"), meters(LENGTHS.map(([name], i) => [name, Number(total[`l${i}`])]), { colour: 4 }))),
    card("Longest sessions", null, table({ caption: "Longest sessions", low: true, heads: false, rows: longest.rows.map(([started, device, user, events, length]) => [Date.parse(started), user ?? device, Number(events), Number(length)]), columns: [
      { name: "Began", num: false, format: (at) => moment(at, "second") }, { name: "Who", cell: (id) => h("a", { href: `#/users?${new URLSearchParams({ id })}` }, id) }, { name: "Events", num: true, format: number }, { name: "Length", num: true, format: duration }] })),
    origin(series.meta),
  ];
}
