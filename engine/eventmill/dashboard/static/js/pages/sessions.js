// Sessions: how many, how long, how many end after one event.

import { query, records, sql } from "../api.js";
import { seriesChart } from "../chart/series.js";
import { meters } from "../chart/small.js";
import { choice, fill, h } from "../dom.js";
import { INTERVALS, compact, duration, moment, number, share } from "../format.js";
import { FIELDS } from "../parts/filters.js";
import { card, figure, head, origin } from "../parts/page.js";
import { iso, rangeOf, rangePicker, suits, whole } from "../parts/range.js";
import { lasting } from "../parts/places.js";
import { saveButton } from "../parts/saving.js";
import { empty, show } from "../parts/states.js";
import { table } from "../parts/table.js";

const LONGEST = `SELECT min(started) AS began, any(device_id) AS device, max(user_id) AS user, sum(events) AS events, dateDiff('millisecond', min(started), max(ended)) AS length
FROM sessions WHERE started >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND started < fromUnixTimestamp64Milli({to:Int64}, 'UTC') GROUP BY session_id ORDER BY length DESC LIMIT 50`;
const LENGTHS = [["p50_ms", "Half are shorter than"], ["p75_ms", "75 of 100"], ["p90_ms", "90 of 100"], ["p95_ms", "95 of 100"], ["p99_ms", "99 of 100"]];
const GROUPS = FIELDS.filter((name) => !["event", "type", "user_id", "device_id", "session_id"].includes(name));
const GROUPS_MAX = 8;

const byOf = ({ by }) => (GROUPS.includes(by) ? by : GROUPS[0]);

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const result = h("div.stack");
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };
  const byField = choice(GROUPS.map((name) => [name, `By ${name}`]), byOf(state), (value) => changed({ by: value }));
  byField.setAttribute("aria-label", "Break down by");

  function draw() {
    return show(result, async (mine) => {
      const range = rangeOf(state);
      const interval = suits(range);
      const bounds = whole(range, INTERVALS[interval]);
      const span = { from: iso(bounds.from), to: iso(bounds.to) };
      const by = byOf(state);
      const [total, series, parts, longest] = await Promise.all([
        query("sessions", { ...span, interval: "total" }, mine), query("sessions", { ...span, interval }, mine),
        query("sessions", { ...span, interval: "total", breakdown: by, limit: GROUPS_MAX }, mine), sql(LONGEST, mine, bounds)]);
      return drawn(records(total)[0], series, records(parts), by, longest, bounds, interval);
    }, signal);
  }

  fill(root, head("Sessions", "Visits, divided by 30 minutes of silence unless configured otherwise", byField, rangePicker(state, changed),
    saveButton("sessions", () => ({ ...lasting(rangeOf(state)), interval: "total", breakdown: byOf(state), limit: GROUPS_MAX }), signal)), result);
  draw();
}

function drawn(total, series, parts, by, longest, bounds, interval) {
  if (!total.sessions) return h("section.card", empty("No sessions in this time", "Take a longer time range."));
  const step = INTERVALS[interval];
  const rows = records(series);
  return [
    h("div.grid.figures", [
      figure("Sessions", compact(total.sessions), `${compact(total.events)} events`),
      figure("Length, median", duration(total.p50_ms), `95 of 100 are shorter than ${duration(total.p95_ms)}`),
      figure("Events each", total.events_per_session.toFixed(1), "on average"),
      figure("Bounced", share(total.bounced, total.sessions), "ended after one event")]),
    h("div.grid", h("section.card.w8", h("h2", `Sessions begun by ${interval}`), seriesChart({ title: `Sessions begun by ${interval}`, kind: "bar", times: rows.map(({ time }) => Date.parse(time)), intervalMs: step, interval, openFrom: Date.now(), series: [{ name: "sessions begun", values: rows.map(({ sessions }) => sessions), colour: 4 }] })),
      h("section.card.w4", h("h2", `By ${by}`), meters(parts.map(({ breakdown, sessions }) => [breakdown, sessions]), { colour: 4 }))),
    h("div.grid",
      h("section.card.w8", h("h2", `What they are like by ${by}`), table({ caption: `Sessions by ${by}`, low: true, rows: parts.map((part) => [part.breakdown ?? "(not set)", part.sessions, part.bounce_rate, part.events_per_session, part.p50_ms, part.p95_ms]), columns: [
        { name: by, num: false }, { name: "Sessions", num: true, format: number }, { name: "Bounced", num: true, format: (value) => share(value, 1) }, { name: "Events each", num: true, format: (value) => value.toFixed(1) }, { name: "Median length", num: true, format: duration }, { name: "95 of 100 under", num: true, format: duration }] })),
      h("section.card.w4", h("h2", "By length"), table({ caption: "Lengths of sessions", low: true, sortable: false, rows: LENGTHS.map(([name, text]) => [text, total[name]]), columns: [{ name: "Of all", num: false }, { name: "Length", num: true, format: duration }] }))),
    card("Longest sessions", "Those in the real-time store", table({ caption: "Longest sessions", low: true, heads: false, rows: longest.rows.map(([began, device, user, events, length]) => [Date.parse(began), user ?? device, Number(events), Number(length)]), columns: [
      { name: "Began", num: false, format: (at) => moment(at, "second") }, { name: "Who", cell: (id) => h("a", { href: `#/users?${new URLSearchParams({ id })}` }, id) }, { name: "Events", num: true, format: number }, { name: "Length", num: true, format: duration }] })),
    origin(series.meta),
  ];
}
