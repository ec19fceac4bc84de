// Of those who came first in one period, how many came again in the periods after it.

import { records, sql } from "../api.js";
import { choice, field, fill, h, suggested } from "../dom.js";
import { day, number, share } from "../format.js";
import { head, origin } from "../parts/page.js";
import { rangeOf, rangePicker } from "../parts/range.js";
import { empty, show } from "../parts/states.js";
import { storeOf, storePicker, within } from "../parts/store.js";

const UNITS = { day: "toDate(timestamp)", week: "toMonday(timestamp)", month: "toStartOfMonth(timestamp)" };
const WHO = { device_id: "Devices", user_id: "Known users" };
const AGES_MAX = 31;

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const result = h("section.card");
  const slot = h("div.stack");
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };
  const first = suggested({ value: state.first ?? "", placeholder: "Any event", onchange: () => changed({ first: first.input.value.trim() || null }) });
  const again = suggested({ value: state.again ?? "", placeholder: "Any event", onchange: () => changed({ again: again.input.value.trim() || null }) });

  function draw() {
    return show(slot, async (mine) => {
      const [from, unit, who] = [storeOf(state), state.unit in UNITS ? state.unit : "day", state.who in WHO ? state.who : "device_id"];
      const range = rangeOf(state, "7d");
      const answer = await sql(statement(from, unit, who), mine, { from: range.from, to: range.to, first: state.first ?? "", again: state.again ?? "" });
      return drawn(records(answer), unit, who, answer.meta);
    }, signal);
  }

  fill(result, slot);
  fill(root, head("Retention", "Who comes again", storePicker(state, changed), rangePicker(state, changed, { fallback: "7d", presets: ["7d", "30d", "90d"] })),
    h("div.stack", h("section.card", h("div.row", h("label.field", "First did", first.input, first.list), h("label.field", "Then did", again.input, again.list),
      field("Who", choice(Object.entries(WHO), state.who ?? "device_id", (value) => changed({ who: value }))), field("By", choice(Object.keys(UNITS).map((unit) => [unit, unit]), state.unit ?? "day", (value) => changed({ unit: value }))))), result));
  draw();
  sql("SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500", signal).then(({ rows }) => [first, again].forEach(({ suggest }) => suggest(rows.map(([name]) => name)))).catch(() => {});
}

function statement(from, unit, who) {
  const span = `${within(from)}${who === "user_id" ? " AND user_id IS NOT NULL" : ""}`;
  return `SELECT cohort, dateDiff('${unit}', cohort, period) AS age, count() AS amount
FROM (SELECT ${who} AS id, ${UNITS[unit]} AS period FROM ${from} WHERE ${span} AND ({again:String} = '' OR event = {again:String}) GROUP BY id, period) AS visits
INNER JOIN (SELECT ${who} AS id, min(${UNITS[unit]}) AS cohort FROM ${from} WHERE ${span} AND ({first:String} = '' OR event = {first:String}) GROUP BY id) AS firsts ON visits.id = firsts.id
WHERE period > cohort GROUP BY cohort, age
UNION ALL
SELECT cohort, -1 AS age, count() AS amount
FROM (SELECT ${who} AS id, min(${UNITS[unit]}) AS cohort FROM ${from} WHERE ${span} AND ({first:String} = '' OR event = {first:String}) GROUP BY id) GROUP BY cohort`;
}

function drawn(rows, unit, who, meta) {
  const cohorts = new Map();
  for (const { cohort, age, amount } of rows) {
    if (!cohorts.has(cohort)) cohorts.set(cohort, { size: 0, came: new Map() });
    if (Number(age) < 0) cohorts.get(cohort).size = Number(amount);
    else cohorts.get(cohort).came.set(Number(age), Number(amount));
  }
  if (!cohorts.size) return [empty("Nobody in this selection", "Take a longer time range, or another first event."), origin(meta)];
  const dates = [...cohorts.keys()].sort();
  const oldest = Math.min(Math.max(...[...cohorts.values()].flatMap(({ came }) => [...came.keys()]), 1), AGES_MAX);
  const ages = Array.from({ length: oldest }, (_, i) => i + 1);
  const newest = dates.at(-1);
  const periods = (cohort) => (unit === "month" ? (new Date(newest).getUTCFullYear() - new Date(cohort).getUTCFullYear()) * 12 + new Date(newest).getUTCMonth() - new Date(cohort).getUTCMonth() : (Date.parse(newest) - Date.parse(cohort)) / (unit === "week" ? 604_800_000 : 86_400_000));
  const line = (cohort) => {
    const { size, came } = cohorts.get(cohort);
    return h("tr", h("th", { scope: "row" }, day(Date.parse(cohort), "UTC")), h("td.num", number(size)), ages.map((age) => {
      if (!came.has(age) && age > periods(cohort)) return h("td.num", h("span.unseen", "not yet"));
      const amount = came.get(age) ?? 0;
      const level = Math.min(Math.ceil((amount / (size || 1)) * 5), 5);
      return h(`td.num.heat${level}`, { title: `${number(amount)} of ${number(size)}` }, share(amount, size));
    }));
  };
  return [h("h2", `${WHO[who]} by the ${unit} of their first visit in this time (UTC)`),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Retention" }, h("table.heat", h("caption.unseen", "Retention"), h("thead", h("tr", ["First", WHO[who]].map((name, i) => h("th", { scope: "col", class: i ? "num" : null }, name)), ages.map((age) => h("th.num", { scope: "col" }, `${unit} ${age}`)))), h("tbody", dates.map(line)))),
    h("p.note", "The newest period is not over yet, so its shares still rise."), origin(meta)];
}
