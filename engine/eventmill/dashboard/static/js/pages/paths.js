// What happens next after an event, or came before one, within a session.

import { query, records, sql } from "../api.js";
import { meters } from "../chart/small.js";
import { choice, field, fill, h, suggested } from "../dom.js";
import { number, share } from "../format.js";
import { card, head, origin } from "../parts/page.js";
import { iso, rangeOf, rangePicker } from "../parts/range.js";
import { lasting } from "../parts/places.js";
import { saveButton } from "../parts/saving.js";
import { empty, show } from "../parts/states.js";
import { table } from "../parts/table.js";

const USUAL = "Product Viewed";
const WAYS = [["start", "after"], ["end", "before"]];
const DEPTH_MAX = 5;
const TOPS = [3, 5, 10, 20];

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const result = h("div.stack");
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };
  const event = suggested({ value: state.event ?? USUAL, placeholder: "event", onchange: () => changed({ event: event.input.value.trim() || null }) });
  const among = (value, values, usual) => (values.includes(Number(value)) ? Number(value) : usual);
  const depths = Array.from({ length: DEPTH_MAX }, (_, i) => i + 1);

  const question = () => ({ [wayOf(state)]: state.event || USUAL, depth: among(state.depth, depths, 3), top: among(state.top, TOPS, 5) });

  function draw() {
    return show(result, async (mine) => {
      const range = rangeOf(state);
      const answer = await query("paths", { ...question(), from: iso(range.from), to: iso(range.to) }, mine);
      return drawn(records(answer), wayOf(state), state.event || USUAL, answer.meta);
    }, signal);
  }

  fill(root, head("Paths", "What happens next, or came before, within a session", rangePicker(state, changed),
    saveButton("paths", () => ({ ...question(), ...lasting(rangeOf(state)) }), signal)),
    h("div.stack", h("section.card", h("div.row",
      field("What comes", choice(WAYS, state.way ?? "start", (value) => changed({ way: value }))), h("label.field", "Event", event.input, event.list),
      field("Steps", choice(depths.map((depth) => [String(depth), String(depth)]), String(among(state.depth, depths, 3)), (value) => changed({ depth: value }))),
      field("Events a step", choice(TOPS.map((top) => [String(top), String(top)]), String(among(state.top, TOPS, 5)), (value) => changed({ top: value }))))), result));
  draw();
  sql("SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500", signal).then(({ rows }) => event.suggest(rows.map(([name]) => name))).catch(() => {});
}

const wayOf = ({ way }) => (way === "end" ? "end" : "start");

function drawn(rows, way, name, meta) {
  if (!rows.length) return h("section.card", empty(`No session with ${name}`, "Take a longer time range, or another event."));
  const onward = way === "start";
  const [near, far] = onward ? ["source", "target"] : ["target", "source"];
  const edge = onward ? "(the session ends)" : "(the session begins)";
  const total = rows.filter(({ step }) => step === 1).reduce((sum, { sessions }) => sum + sessions, 0);
  const steps = [...Map.groupBy(rows, ({ step }) => step)];
  return [
    h("h2", `${number(total)} sessions have ${name}`),
    h("div.grid", steps.map(([step, edges]) => {
      const sums = new Map();
      for (const row of edges) sums.set(row[far] ?? edge, (sums.get(row[far] ?? edge) ?? 0) + row.sessions);
      return h("section.card.w4", h("h2", onward ? `Step ${step} after` : `Step ${step} before`), meters([...sums].sort((a, b) => b[1] - a[1]), { whole: total, colour: step }));
    })),
    card("From event to event", null, table({ caption: "From event to event", rows: rows.map((row) => [row.step, row.source ?? edge, row.target ?? edge, row.sessions, row.sessions]), columns: [
      { name: "Step", num: true }, { name: "From", num: false }, { name: "To", num: false }, { name: "Sessions", num: true, format: number },
      { name: "Of all", num: true, format: (amount) => share(amount, total) }] })),
    origin(meta),
  ];
}
