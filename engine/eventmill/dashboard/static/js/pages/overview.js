// What goes on: live rate, events, devices, users, sessions; what happens most, and where.

import { get, records, sql, trends } from "../api.js";
import { meters, spark } from "../chart/small.js";
import { seriesChart } from "../chart/series.js";
import { fill, h, segments } from "../dom.js";
import { INTERVALS, compact, duration, number, share } from "../format.js";
import { card, expectedOf, figure, head, openFrom, origin } from "../parts/page.js";
import { PRESETS, iso, suits, whole } from "../parts/range.js";
import { noEvents, repeat, show } from "../parts/states.js";
import { table } from "../parts/table.js";

const REFRESH_MS = 10_000;
const RATE_MS = 2_000;
const RATES = 60;
const RANGES = [["1h", "1 hour"], ["6h", "6 hours"], ["24h", "24 hours"]];

const TOTALS = `SELECT count() AS events, uniq(device_id) AS devices, uniq(user_id) AS users, uniq(session_id) AS sessions
FROM events WHERE timestamp >= fromUnixTimestamp64Milli({from:Int64}) AND timestamp < fromUnixTimestamp64Milli({to:Int64})`;
const TOP = `SELECT event, sum(n) AS events, groupArray(bucket) AS buckets, groupArray(n) AS amounts FROM (
  SELECT event, intDiv(toUnixTimestamp(minute), {step:UInt32}) AS bucket, sum(events) AS n FROM events_1m
  WHERE minute >= toDateTime({from:UInt32}) AND minute < toDateTime({to:UInt32}) GROUP BY event, bucket)
GROUP BY event ORDER BY events DESC, event LIMIT 12`;
const by = (field) => `SELECT ${field} AS name, count() AS events FROM events
WHERE timestamp >= fromUnixTimestamp64Milli({from:Int64}) AND timestamp < fromUnixTimestamp64Milli({to:Int64})
GROUP BY name ORDER BY events DESC, name LIMIT 6`;
const SPARKS = 30;

export function render(root, { params, keep, signal }) {
  let preset = RANGES.some(([name]) => name === params.range) ? params.range : "24h";
  const rate = figure("Events per second, now", "–", "");
  const [chart, top, platforms, versions, countries] = Array.from({ length: 5 }, () => h("div.stack"));
  const totals = h("div.contents");
  const figures = h("div.grid", wide("w3", rate), totals);
  const content = h("div.stack", figures,
    h("div.grid",
      h("div.stack.w8", card("Events", null, chart), card("Top events", null, top)),
      h("div.stack.w4", card("By platform", null, platforms), card("By app version", null, versions), card("By country", null, countries))));
  fill(root, head("Overview", "What your apps send, as it arrives",
    segments("Time range", RANGES, preset, (chosen) => { preset = chosen; keep({ range: chosen }); refresh(); })), content);

  async function refresh() {
    const now = Date.now();
    const span = { from: now - PRESETS[preset], to: now };
    const bounds = { from: span.from, to: span.to };
    await Promise.all([
      show(totals, (mine) => numbers(content, span, bounds, mine), signal),
      show(chart, (mine) => events(span, mine), signal),
      show(top, (mine) => topEvents(span, mine), signal),
      ...[[platforms, "platform", 0], [versions, "app_version", 4], [countries, "country", 2]].map(([slot, field, colour]) =>
        show(slot, (mine) => breakdown(field, bounds, colour, mine), signal)),
    ]);
  }

  repeat(refresh, REFRESH_MS, signal);
  live(rate, signal);
}

function wide(name, element) {
  element.classList.add(name);
  return element;
}

async function numbers(content, span, bounds, signal) {
  const before = { event: null, measure: "events", interval: "hour", from: iso(2 * span.from - span.to), to: iso(span.from) };
  const [[now], past] = await Promise.all([sql(TOTALS, signal, bounds).then(records), trends(before, signal)]);
  const earlier = past.rows.reduce((sum, row) => sum + Number(row[1]), 0);
  if (!now.events && !earlier) {
    // A project's key is not told what the whole server received.
    const { ledger } = await get("/v1/status", signal).catch((error) => {
      if (error.status === 403) return { ledger: { received: 0 } };
      throw error;
    });
    if (!ledger.received) {
      fill(content, h("section.card", noEvents()));
      return null;
    }
  }
  const change = earlier ? (now.events - earlier) / earlier : null;
  const sign = change >= 0 ? "+" : "−";
  return [
    figure("Events", compact(now.events), change === null ? "none in the period before" : h("span", h(`span.${change >= 0 ? "up" : "down"}`, `${sign}${share(Math.abs(change), 1)}`), " against the period before")),
    figure("Active devices", compact(now.devices), `${compact(now.users)} known users`),
    figure("Sessions", compact(now.sessions), now.sessions ? `${(now.events / now.sessions).toFixed(1)} events each` : ""),
  ].map((each) => wide("w3", each));
}

async function events(span, signal) {
  const interval = suits(span);
  const range = whole(span, INTERVALS[interval]);
  const answer = await trends({ event: null, measure: "events", interval, from: iso(range.from), to: iso(range.to) }, signal);
  return [
    seriesChart({ title: `Events per ${interval}`, times: answer.rows.map(([time]) => Date.parse(time)), kind: "bar", interval, intervalMs: INTERVALS[interval],
      series: [{ name: `events per ${interval}`, values: answer.rows.map((row) => Number(row[1])) }], openFrom: openFrom(answer.meta), expected: expectedOf(answer.meta) }),
    origin(answer.meta),
  ];
}

async function topEvents(span, signal) {
  const step = Math.ceil((span.to - span.from) / 1000 / SPARKS / 60) * 60;
  const [from, to] = [Math.floor(span.from / 1000), Math.ceil(span.to / 1000)];
  const answer = records(await sql(TOP, signal, { from, to, step }));
  const total = answer.reduce((sum, { events: n }) => sum + Number(n), 0);
  if (!total) return h("p.note", "No events in this time.");
  const first = Math.floor(from / step);
  const rows = answer.map(({ event, events: n, buckets, amounts }) => {
    const values = Array.from({ length: Math.floor(to / step) - first + 1 }, () => 0);
    buckets.forEach((bucket, i) => { if (bucket - first < values.length) values[bucket - first] = Number(amounts[i]); });
    return [event, Number(n), Number(n) / total, values];
  });
  return table({ caption: "Top events", sortable: false, rows, columns: [
    { name: "Event", cell: (event) => h("a", { href: `#/explore?${new URLSearchParams({ event })}` }, event) },
    { name: "Events", num: true, format: number },
    { name: "Share", num: true, format: (part) => share(part, 1) },
    { name: "Over time", num: false, cell: (values) => spark(values.slice(0, -1)) },
  ] });
}

async function breakdown(field, bounds, colour, signal) {
  const { rows } = await sql(by(field), signal, bounds);
  if (!rows.length) return h("p.note", "No events in this time.");
  if (rows.every(([name]) => name === null)) return h("p.note", field === "country" ? "No event names one: give the users' dimensions: see dimensions.file and dimensions.redis." : "No event names one.");
  return meters(rows.map(([name, events]) => [name, Number(events)]), { colour });
}

/** Events per second from the ledger's own count, with the last two minutes as a sparkline. */
function live(box, signal) {
  let last = null;
  const rates = [];
  return repeat(async () => {
    try {
      const { ledger, in_flight: waiting } = await get("/v1/status", signal);
      const now = performance.now();
      if (last) {
        const rate = Math.max((ledger.received - last.received) / ((now - last.at) / 1000), 0);
        rates.push(rate);
        if (rates.length > RATES) rates.shift();
        const shown = rate < 10 ? number(Math.round(rate * 10) / 10) : compact(Math.round(rate));
        fill(box, h("span.label", "Events per second, now"), h("span.value", shown), h("span.more", rates.length > 2 ? spark(rates, 2) : `${compact(waiting)} in flight`));
      } else {
        fill(box, h("span.label", "Events per second, now"), h("span.value", "…"), h("span.more", `${compact(waiting)} in flight`));
      }
      last = { received: ledger.received, at: now };
    } catch (error) {
      if (signal.aborted) return;
      last = null;
      fill(box, h("span.label", "Events per second, now"), h("span.value", "–"), h("span.more", error.message, ` Asked again in ${duration(RATE_MS)}.`));
    }
  }, RATE_MS, signal);
}
