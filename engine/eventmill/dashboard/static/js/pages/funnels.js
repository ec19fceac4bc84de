// How many devices take these steps, in this order, within a time.

import { query, records, sql } from "../api.js";
import { choice, field, fill, h, suggested } from "../dom.js";
import { duration, label, number, share } from "../format.js";
import { FIELDS } from "../parts/filters.js";
import { card, head, origin } from "../parts/page.js";
import { iso, rangeOf, rangePicker } from "../parts/range.js";
import { lasting } from "../parts/places.js";
import { saveButton } from "../parts/saving.js";
import { empty, show } from "../parts/states.js";
import { table as sheet } from "../parts/table.js";

const STEPS_MAX = 8;
const WINDOWS = [[600_000, "10 minutes"], [3_600_000, "1 hour"], [86_400_000, "1 day"], [604_800_000, "7 days"]];
const USUAL = ["Product Viewed", "Product Added", "Checkout Started", "Order Completed"];
const GROUPS_MAX = 8;

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const steps = stepsOf(params.steps);
  const result = h("div.stack");
  const list = h("div.form");
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };
  const stepsChanged = () => changed({ steps: JSON.stringify(steps.filter(Boolean)) });
  let names = [];

  function form() {
    fill(list, steps.map((step, i) => {
      const named = suggested({ value: step, placeholder: "event", "aria-label": `Step ${i + 1}`, onchange: () => { steps[i] = named.input.value.trim(); stepsChanged(); } }, names);
      return h("div.row.tight", h("span.note", i + 1), named.input, named.list, h("button.small.ghost", { type: "button", "aria-label": `Remove step ${i + 1}`, disabled: steps.length <= 2, onclick: () => { steps.splice(i, 1); form(); stepsChanged(); } }, "✕"));
    }), steps.length < STEPS_MAX && h("button.small.ghost", { type: "button", onclick: () => { steps.push(""); form(); } }, "+ Add step"));
  }

  const question = () => ({ steps: steps.filter(Boolean).map((event) => ({ event })), window: `${windowOf(state)}ms` });

  function draw() {
    const named = steps.filter(Boolean);
    return show(result, async (mine) => {
      if (named.length < 2) return empty("A funnel has at least two steps", "Name an event for each.");
      const [window, by, range] = [windowOf(state), byOf(state), rangeOf(state)];
      const body = { ...question(), from: iso(range.from), to: iso(range.to) };
      const [whole, parts] = await Promise.all([query("funnel", body, mine), by && query("funnel", { ...body, breakdown: by, limit: GROUPS_MAX }, mine)]);
      return drawn(records(whole), parts && records(parts), named, window, by, whole.meta);
    }, signal);
  }

  const byField = choice([["", "Nothing"], ...FIELDS.filter((name) => !["event", "type", "user_id", "device_id", "session_id"].includes(name)).map((name) => [name, name])], state.by ?? "", (value) => changed({ by: value || null }));
  fill(root, head("Funnels", "Devices that take these steps in this order", rangePicker(state, changed),
    saveButton("funnel", () => ({ ...question(), ...lasting(rangeOf(state)), ...(byOf(state) && { breakdown: byOf(state), limit: GROUPS_MAX }) }), signal)),
    h("div.split", h("section.card", h("h2", "Steps"), h("div.form", list,
      field("All within", choice(WINDOWS.map(([ms, name]) => [String(ms), name]), state.window ?? "3600000", (value) => changed({ window: value }))), field("Break down by", byField))), h("section.card", result)));
  form();
  draw();
  sql("SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500", signal).then(({ rows }) => { names = rows.map(([name]) => name); form(); }).catch(() => {});
}

const windowOf = ({ window }) => (WINDOWS.some(([ms]) => String(ms) === window) ? Number(window) : 3_600_000);
const byOf = ({ by }) => (FIELDS.includes(by) ? by : null);

function stepsOf(text) {
  try {
    const found = JSON.parse(text ?? "null");
    if (Array.isArray(found) && found.length >= 2 && found.every((each) => typeof each === "string")) return found.slice(0, STEPS_MAX);
  } catch { /* a damaged link: the usual steps */ }
  return [...USUAL];
}

function drawn(steps, parts, names, window, by, meta) {
  const first = steps[0].count;
  if (!first) return [empty("No device took the first step", "Take a longer time range, or another event."), origin(meta)];
  const bars = h("ol.funnel", steps.map(({ event, count, conversion, step_conversion: kept, p50_ms: half, p95_ms: most }, i) => {
    const bar = h("i.s0");
    bar.style.width = `${conversion * 100}%`;
    return h("li", h("div.row.tight", h("strong", `${i + 1}. ${event}`), h("span.amount", number(count), h("small", ` ${share(conversion, 1)}`))), h("span.track", bar),
      i > 0 && h("span.note", `${share(kept, 1)} of the step before, ${number(steps[i - 1].count - count)} lost${half === null ? "" : `; half take up to ${duration(half)}, 95 of 100 up to ${duration(most)}`}`));
  }));
  const groups = parts ? [...Map.groupBy(parts, ({ breakdown }) => breakdown)].map(([name, found]) => [label(name), ...found.map(({ count }) => count), found.at(-1).conversion]) : [];
  return [
    h("h2", `${share(steps.at(-1).conversion, 1)} take all ${steps.length} steps within ${duration(window)}`), bars,
    by && sheet({ caption: `By ${by}`, low: true, rows: groups, columns: [{ name: by, num: false }, ...names.map((name) => ({ name, num: true, format: number })), { name: "All steps", num: true, format: (part) => share(part, 1) }] }),
    origin(meta),
  ];
}
