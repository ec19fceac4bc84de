// Where every event is: the ledger by hour, lags, dead letters, quality, and the state of log and lake.

import { get } from "../api.js";
import { seriesChart } from "../chart/series.js";
import { fill, h, segments } from "../dom.js";
import { ago, bytes, compact, duration, moment, number, share } from "../format.js";
import { card, figure, head } from "../parts/page.js";
import { quantile, parse } from "../parts/metrics.js";
import { empty, noEvents, repeat, show } from "../parts/states.js";
import { table } from "../parts/table.js";
import { deadLetters } from "./pipeline_dead.js";
import { quality } from "./pipeline_quality.js";

const REFRESH_MS = 5_000;
const HOUR = 3_600_000;
const SPANS = [["24", "24 hours"], ["72", "3 days"], ["168", "7 days"]];
const CONSUMERS = { process: "Processor", rescue: "Rescue of suspects", realtime: "Real-time store", lake: "Lake" };

/** Events of an hour that no hop has finished with: the ledger's own equation. */
function waiting(hour) {
  const raw = hour.accepted + hour.rescued + hour.replayed - hour.enriched - hour.invalid - hour.suspect;
  return raw + (hour.suspect - hour.duplicate - hour.rescued);
}

const dead = (hour) => hour.rejected + hour.invalid - hour.replayed;

export function render(root, { params, keep, signal }) {
  let hours = SPANS.some(([value]) => value === params.hours) ? params.hours : "24";
  const [figures, ledger, lags, letters, state, checks] = Array.from({ length: 6 }, () => h("div.stack"));
  const proof = h("div.stack");
  let last = null;

  async function refresh() {
    let found = null;
    await show(ledger, async (mine) => {
      found = await get(`/v1/pipeline?hours=${hours}`, mine);
      if (!found.hours.length) return noEvents();
      return byHour(found.hours);
    }, signal);
    if (!found || signal.aborted) return;
    await show(figures, () => numbers(found, signal), signal);
    const now = performance.now();
    const totals = sum(found.hours);
    const rates = last && last.hours === hours ? { received: (totals.received - last.totals.received) / ((now - last.now) / 1000), enriched: (totals.enriched - last.totals.enriched) / ((now - last.now) / 1000) } : null;
    last = { totals, now, hours };
    fill(lags, consumers(found, rates));
    fill(state, stores(found));
  }

  const prove = h("button.main", { type: "button", onclick: () => show(proof, (mine) => audit(mine), signal) }, "Prove the balance");
  fill(root, head("Pipeline", "Received = stored + duplicate + dead + forgotten + in flight, hour by hour",
    segments("Hours shown", SPANS, hours, (chosen) => { hours = chosen; keep({ hours: chosen }); refresh(); }), prove),
  h("div.stack", figures, proof,
    card("The ledger by hour of receipt", "Each event is in exactly one column", ledger),
    h("div.grid", wide("w6", card("Consumers", "What each has still to take", lags)), wide("w6", card("Log and lake", null, state))),
    card("Dead letters", "Refused events, kept with their bytes and the reason", letters),
    card("Quality", "Of the events of the last 24 hours by their own time", checks)));
  repeat(refresh, REFRESH_MS, signal);
  deadLetters(letters, signal);
  quality(checks, signal);
}

function wide(name, element) {
  element.classList.add(name);
  return element;
}

function sum(hours) {
  const total = { received: 0, rejected: 0, accepted: 0, enriched: 0, invalid: 0, suspect: 0, duplicate: 0, rescued: 0, replayed: 0 };
  for (const hour of hours) for (const hop of Object.keys(total)) total[hop] += hour[hop];
  return total;
}

async function numbers(found, signal) {
  const total = sum(found.hours);
  const text = await fetch("/metrics", { signal }).then((answer) => (answer.ok ? answer.text() : ""));
  const metrics = parse(text);
  const commit = [0.5, 0.99].map((q) => quantile(metrics, "eventmill_commit_seconds", q));
  const query = [0.5, 0.95, 0.99].map((q) => quantile(metrics, "eventmill_query_seconds", q));
  const lookups = metrics.get("eventmill_query_cache_lookups_total") ?? [];
  const asked = lookups.reduce((all, { value }) => all + value, 0);
  const kept = lookups.filter(({ labels }) => labels.found === "hit").reduce((all, { value }) => all + value, 0);
  const list = [
    figure("Received", compact(total.received), `in ${found.hours.length} ${found.hours.length === 1 ? "hour" : "hours"} with events`),
    figure("In flight", compact(found.in_flight), found.pressure ? h("span.down", found.pressure) : "no pressure on the log"),
    figure("Duplicates", share(total.duplicate, total.received), `${number(total.duplicate)} thrown away, ${number(total.rescued)} put back`),
    figure("Dead letters", share(dead(total), total.received), `${number(dead(total))} kept with their reason`),
    commit[0] !== null && figure("Commit p50", duration(commit[0] * 1000), `p99 ${duration(commit[1] * 1000)}`),
    query[0] !== null && figure("Query p50", duration(query[0] * 1000), `p95 ${duration(query[1] * 1000)}, p99 ${duration(query[2] * 1000)}${asked ? `; ${share(kept, asked)} from the cache` : ""}`),
  ].filter(Boolean);
  return h("div.grid.figures", list);
}

function byHour(hours) {
  const times = [];
  for (let at = hours[0].hour; at <= hours.at(-1).hour && times.length < 1000; at += HOUR) times.push(at);
  const at = new Map(hours.map((hour) => [hour.hour, hour]));
  const of = (pick) => times.map((time) => (at.has(time) ? pick(at.get(time)) : 0));
  const rows = [...hours].reverse().map((hour) => [hour.hour, hour.received, hour.enriched, hour.duplicate, dead(hour), waiting(hour), hour.rescued, hour.replayed]);
  const difference = ([, received, enriched, duplicate, refused, flying]) => received - enriched - duplicate - refused - flying;
  return [
    times.length > 1 && seriesChart({ title: "Events by hour of receipt", times, intervalMs: HOUR, kind: "bar", height: 200, interval: "hour", openFrom: Date.now(), series: [
      { name: "passed on to the stores", values: of((hour) => hour.enriched), colour: 2 },
      { name: "duplicate", values: of((hour) => hour.duplicate), colour: 6 },
      { name: "dead", values: of(dead), colour: 7 },
      { name: "in flight", values: of(waiting), colour: 0 }] }),
    table({ caption: "The ledger by hour of receipt", low: true, rows: rows.map((row) => [row[0], difference(row), ...row.slice(1)]), columns: [
      { name: "Hour", num: false, format: (hour) => moment(hour) },
      { name: "Balance", num: false, cell: (left) => (left === 0 ? h("span.pill.good", "✓ balanced") : h("span.pill.bad", `${number(left)} unaccounted`)) }, ...["Received", "To the stores", "Duplicate", "Dead", "In flight", "Rescued", "Replayed"].map((name) => ({ name, num: true, format: number }))] }),
  ];
}

function consumers(found, rates) {
  const rows = Object.entries(found.lag).map(([group, lag]) => [CONSUMERS[group] ?? group, lag, lag === 0 ? "up to date" : lag < 1_000_000 ? "taking" : "behind"]);
  return [
    table({ caption: "Consumers", sortable: false, rows, columns: ["Consumer", { name: "Events to take", num: true, format: number },
      { name: "State", cell: (text) => h(`span.pill.${{ "up to date": "good", taking: "warn", behind: "bad" }[text]}`, text) }] }),
    h("p.note", rates ? `${compact(Math.round(Math.max(rates.received, 0)))} events/s received, ${compact(Math.round(Math.max(rates.enriched, 0)))} events/s processed, over the last ${duration(REFRESH_MS)}.` : "Rates follow with the next look."),
  ];
}

function stores(found) {
  const { lake, log, compacted } = found;
  const rows = [["Log", `${bytes(log.bytes)} of at most ${bytes(log.bytes_max)}`]];
  if (lake) {
    rows.push(["Lake", `${number(lake.rows)} rows in ${number(lake.files)} ${lake.files === 1 ? "file" : "files"}, ${bytes(lake.bytes)}`],
      ["Average file", lake.files ? bytes(lake.bytes / lake.files) : "–"],
      ["Newest snapshot", `${ago(lake.written_at)}; ${number(lake.snapshots)} kept`]);
  } else rows.push(["Lake", "nothing stored yet"]);
  rows.push(["Compaction", compacted ? `${ago(compacted.at)}, took ${duration(compacted.seconds * 1000)}` : `not since the start; every ${duration(found.compact_interval_ms)}`]);
  if (compacted) rows.push(["It did", Object.entries(compacted.report).filter(([, value]) => value).map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "number" ? number(value) : value}`).join(", ") || "nothing to do"]);
  return h("table.plain", h("caption.unseen", "Log and lake"), h("tbody", rows.map(([name, value]) => h("tr", h("th", { scope: "row" }, name), h("td.wrap", value)))));
}

async function audit(signal) {
  const found = await get("/v1/audit", signal);
  if (!found.hours.length) return empty("Nothing to prove yet", "The ledger is empty.");
  const rows = [...found.hours].reverse().map((hour) => [hour.hour, hour.received, hour.duplicates, hour.dead,
    ...["realtime", "lake"].flatMap((store) => [hour.stores[store].stored, hour.stores[store].in_flight, hour.stores[store].missing])]);
  const verdict = (missing) => (missing === 0 ? h("span.pill.good", "✓ 0") : h("span.pill.bad", number(missing)));
  return card("Proof from the stores", h("span", found.balanced ? h("span.pill.good", "✓ every hour balances in both stores") : h("span.pill.bad", "it does not balance"), h("span.note", ` asked at ${moment(Date.now(), "second")}`)),
    h("p.note", `${number(found.received)} received = ${number(found.stores.realtime.stored)} stored + ${number(found.duplicates)} duplicates + ${number(found.dead)} dead + ${number(found.stores.realtime.in_flight)} in flight (real time); ${number(found.stores.lake.stored)} stored in the lake. Rows are counted in the stores themselves while the consumers stand still.`),
    table({ caption: "Proof by hour", low: true, rows, columns: [{ name: "Hour", num: false, format: (hour) => moment(hour) }, ...["Received", "Duplicates", "Dead"].map((name) => ({ name, num: true, format: number })),
      ...["Real time", "Lake"].flatMap((store) => [{ name: `${store}: stored`, num: true, format: number }, { name: "in flight", num: true, format: number }, { name: "missing", num: true, cell: verdict }])] }));
}
