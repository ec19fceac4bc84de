// How good the events are: delays, flags, dimensions, and what is missing where.

import { records, sql } from "../api.js";
import { choice, fill, h } from "../dom.js";
import { duration, number, share } from "../format.js";
import { empty, show } from "../parts/states.js";
import { table } from "../parts/table.js";

/** Bits of `flags`, with what each says. */
const FLAGS = [
  ["late", 7, "Late: more than the allowed lateness after their own time"],
  ["unknown_dimensions", 6, "Dimensions could not be looked up"],
  ["no_sent", 0, "Phone's clock unknown: no sentAt"],
  ["absurd_sent", 1, "Phone's clock unknown: absurd sentAt"],
  ["no_time", 2, "No time of their own"],
  ["absurd_time", 3, "Absurd time of their own"],
  ["hashed", 4, "Id was no UUID, so it is hashed"],
  ["derived", 5, "No id, so it is made of their bytes"],
  ["rescued", 8, "Suspected to be a duplicate, and put back"],
  ["replayed", 9, "Replayed from the dead letters"],
];
const SPAN = "timestamp >= now() - INTERVAL 1 DAY AND timestamp < now() + INTERVAL 1 HOUR";
const TOTALS = `SELECT count() AS events, ${FLAGS.map(([name, bit]) => `countIf(bitAnd(flags, ${1 << bit}) != 0) AS ${name}`).join(", ")},
  countIf(user_id IS NOT NULL) AS known, countIf(user_id IS NOT NULL AND (segment IS NOT NULL OR country IS NOT NULL OR tier IS NOT NULL)) AS enriched,
  quantiles(0.5, 0.99)(dateDiff('millisecond', received_at, inserted_at)) AS stored_ms,
  quantiles(0.5, 0.99)(greatest(dateDiff('millisecond', timestamp, received_at), 0)) AS late_ms
FROM events WHERE ${SPAN}`;
const COLUMNS = ["user_id", "platform", "app_version", "os_version", "device_model", "locale", "country", "segment", "tier"];
const MISSING = `SELECT event, count() AS events, ${COLUMNS.map((name) => `countIf(${name} IS NULL) AS ${name}`).join(", ")}
FROM events WHERE ${SPAN} GROUP BY event ORDER BY events DESC LIMIT 100`;
const SAMPLE = 20_000;
const PROPERTIES = `SELECT key AS property, count() AS present, countIf(JSONExtractRaw(properties, key) = 'null') AS nulls
FROM (SELECT properties FROM events WHERE event = {event:String} AND ${SPAN} LIMIT ${SAMPLE}) ARRAY JOIN JSONExtractKeys(properties) AS key
GROUP BY key ORDER BY present DESC LIMIT 200`;

export function quality(slot, signal) {
  return show(slot, async (mine) => {
    const [total] = records(await sql(TOTALS, mine));
    if (!total.events) return empty("No events in the last 24 hours", "These figures are of events by their own time.");
    const flagged = FLAGS.filter(([name]) => total[name] > 0);
    return [
      h("div.grid", facts("Delays", [
        ["From receipt to the real-time store, p50", duration(total.stored_ms[0])], ["… p99", duration(total.stored_ms[1])],
        ["From the phone to receipt, p50", duration(total.late_ms[0])], ["… p99", duration(total.late_ms[1])]]),
      facts("Dimensions", [["Events of known users", share(total.known, total.events)], ["… with a country, segment or tier (hit rate)", share(total.enriched, total.known)]]),
      facts("Flags", flagged.length ? flagged.map(([name, , text]) => [text, share(total[name], total.events)]) : [["Nothing unusual about any event", "✓"]])),
      missing(signal),
    ];
  }, signal);
}

function facts(title, rows) {
  return h("div.w4", h("h3", title), h("table.plain", h("caption.unseen", title), h("tbody", rows.map(([name, value]) => h("tr", h("th.wrap", { scope: "row" }, name), h("td.num", value))))));
}

/** Null rates, asked for when opened: they read more. */
function missing(signal) {
  const [columns, properties] = [h("div.stack"), h("div.stack")];
  const details = h("details", { ontoggle: () => { if (details.open && !columns.childElementCount) open(); } },
    h("summary", "What is missing, by event and property"), h("div.stack", columns, properties));
  const rate = (part, whole) => h(part > 0.5 * whole ? "span.down" : "span", share(part, whole));

  async function open() {
    await show(columns, async (mine) => {
      const found = records(await sql(MISSING, mine));
      const pick = choice(found.map(({ event }) => [event, event]), found[0].event, (event) => of(event, found));
      pick.setAttribute("aria-label", "Event");
      of(found[0].event, found);
      return [table({ caption: "Share of events without a value, by column", low: true, rows: found.map((row) => [row.event, row.events, ...COLUMNS.map((name) => row[name])]),
        columns: ["Event", { name: "Events", num: true, format: number }, ...COLUMNS.map((name) => ({ name, num: true, cell: (part, row) => rate(part, row[1]) }))] }), h("div.tools", h("span.note", "Properties of"), pick)];
    }, signal);
  }

  function of(event, found) {
    const whole = Math.min(found.find((row) => row.event === event).events, SAMPLE);
    show(properties, async (mine) => {
      const { rows } = await sql(PROPERTIES, mine, { event });
      if (!rows.length) return h("p.note", `No ${event} has properties.`);
      return table({ caption: `Properties of ${event}, in ${number(whole)} of its events`, low: true, rows: rows.map(([name, present, nulls]) => [name, whole - present + nulls, present]),
        columns: ["Property", { name: "Missing or null", num: true, cell: (part) => rate(part, whole) }, { name: "Present", num: true, format: number }] });
    }, signal);
  }

  return details;
}
