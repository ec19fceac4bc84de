// Of those who came first in one period, how many came again in the periods after it.

import { query, records, sql } from "../api.js";
import { choice, field, fill, h, suggested } from "../dom.js";
import { day, number, share } from "../format.js";
import { head, origin } from "../parts/page.js";
import { iso, rangeOf, rangePicker } from "../parts/range.js";
import { lasting } from "../parts/places.js";
import { saveButton } from "../parts/saving.js";
import { empty, show } from "../parts/states.js";

const UNITS = ["day", "week", "month"];
const WHO = { devices: "Devices", users: "Known users" };
const AGES_MAX = 31;

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const result = h("section.card");
  const slot = h("div.stack");
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };
  const first = suggested({ value: state.first ?? "", placeholder: "Any event", onchange: () => changed({ first: first.input.value.trim() || null }) });
  const again = suggested({ value: state.again ?? "", placeholder: "Any event", onchange: () => changed({ again: again.input.value.trim() || null }) });

  const question = () => ({
    interval: UNITS.includes(state.unit) ? state.unit : "day", measure: state.who in WHO ? state.who : "devices",
    first: { event: state.first || null }, returning: { event: state.again || null } });

  function draw() {
    return show(slot, async (mine) => {
      const [range, body] = [rangeOf(state, "7d"), question()];
      const answer = await query("retention", { ...body, from: iso(range.from), to: iso(range.to) }, mine);
      return drawn(records(answer), body.interval, body.measure, answer.meta);
    }, signal);
  }

  fill(result, slot);
  fill(root, head("Retention", "Who comes again", rangePicker(state, changed, { fallback: "7d", presets: ["7d", "30d", "90d"] }),
    saveButton("retention", () => ({ ...question(), ...lasting(rangeOf(state, "7d")) }), signal)),
    h("div.stack", h("section.card", h("div.row", h("label.field", "First did", first.input, first.list), h("label.field", "Then did", again.input, again.list),
      field("Who", choice(Object.entries(WHO), state.who ?? "devices", (value) => changed({ who: value }))), field("By", choice(UNITS.map((unit) => [unit, unit]), state.unit ?? "day", (value) => changed({ unit: value }))))), result));
  draw();
  sql("SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500", signal).then(({ rows }) => [first, again].forEach(({ suggest }) => suggest(rows.map(([name]) => name)))).catch(() => {});
}

function drawn(rows, unit, who, meta) {
  const cohorts = [...Map.groupBy(rows, ({ cohort }) => cohort)].filter(([, cells]) => cells[0].count);
  if (!cohorts.length) return [empty("Nobody in this selection", "Take a longer time range, or another first event."), origin(meta)];
  const oldest = Math.min(Math.max(...cohorts.map(([, cells]) => cells.length - 1), 1), AGES_MAX);
  const ages = Array.from({ length: oldest }, (_, i) => i + 1);
  const line = ([cohort, cells]) => {
    const size = cells[0].count;
    return h("tr", h("th", { scope: "row" }, day(Date.parse(cohort), "UTC")), h("td.num", number(size)), ages.map((age) => {
      if (age >= cells.length) return h("td.num", h("span.unseen", "not yet"));
      const amount = cells[age].count;
      const level = Math.min(Math.ceil((amount / (size || 1)) * 5), 5);
      return h(`td.num.heat${level}`, { title: `${number(amount)} of ${number(size)}` }, share(amount, size));
    }));
  };
  return [h("h2", `${WHO[who]} by the ${unit} of their first visit in this time (UTC)`),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Retention" }, h("table.heat", h("caption.unseen", "Retention"), h("thead", h("tr", ["First", WHO[who]].map((name, i) => h("th", { scope: "col", class: i ? "num" : null }, name)), ages.map((age) => h("th.num", { scope: "col" }, `${unit} ${age}`)))), h("tbody", cohorts.map(line)))),
    h("p.note", "The newest period is not over yet, so its shares still rise."), origin(meta)];
}
