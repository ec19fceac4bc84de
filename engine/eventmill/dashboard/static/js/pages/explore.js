// Trends: one measure over time, broken down and filtered; as a chart and a table, as a link and a file.

import { records, sql, trends } from "../api.js";
import { seriesChart } from "../chart/series.js";
import { choice, field, fill, h, say, segments, suggested } from "../dom.js";
import { INTERVALS, label, moment, number } from "../format.js";
import { FIELDS, conditions, filterList, readFilters } from "../parts/filters.js";
import { downloads } from "../parts/files.js";
import { expectedOf, head, openFrom, origin } from "../parts/page.js";
import { lasting } from "../parts/places.js";
import { iso, possible, rangeOf, rangePicker, suits, whole } from "../parts/range.js";
import { saveButton } from "../parts/saving.js";
import { empty, repeat, show, wrong } from "../parts/states.js";
import { table } from "../parts/table.js";

const PLAIN = [["events", "Number of events"], ["devices", "Active devices"], ["users", "Active users"], ["sessions", "Sessions"]];
const OF_NUMBER = [["sum", "Sum of"], ["avg", "Average of"], ["min", "Minimum of"], ["max", "Maximum of"], ["p50", "Median of"], ["p95", "95th percentile of"], ["p99", "99th percentile of"]];
const KINDS = [["line", "Lines"], ["area", "Areas"], ["bar", "Bars"]];
const REFRESH_MS = 30_000;
const SERIES_MAX = 9;
/** The colour of all values that have none of their own. */
const OTHERS = 9;
const EVENTS = "SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500";
const PROPERTIES = `SELECT arrayJoin(JSONExtractKeys(properties)) AS name, count() AS n FROM (SELECT properties FROM events WHERE event = {event:String} OR {event:String} = '' LIMIT 2000)
GROUP BY name ORDER BY n DESC LIMIT 60`;

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const filters = readFilters(params.filters);
  const result = h("div.stack");
  const actions = h("div.tools");
  let answer = null;

  const set = (changes) => { Object.assign(state, changes); keep(changes); };
  const changed = (changes) => { set(changes); draw(); };
  const event = suggested({ value: state.event ?? "", placeholder: "All events", onchange: () => { changed({ event: event.input.value.trim() || null }); properties(); } });
  const [fn, of] = (state.measure ?? "events").split(/:(.*)/s);
  const number_ = suggested({ value: of ?? "", placeholder: "properties.price", onchange: measured });
  const numberField = field("Number", h("span"), null);
  const measure = choice([...PLAIN, ...OF_NUMBER], fn, measured);
  const by = Array.from({ length: 3 }, (_, i) => suggested({ value: breakdowns(state)[i] ?? "", placeholder: i ? "and by…" : "Nothing", onchange: () => changed({ by: by.map(({ input }) => input.value.trim()).filter(Boolean).join(",") || null }) }, FIELDS));
  const intervals = h("span");
  const compare = h("input", { type: "checkbox", checked: state.compare === "previous", onchange: () => changed({ compare: compare.checked ? "previous" : null }) });
  const cumulative = h("input", { type: "checkbox", checked: state.cumulative === "1", onchange: () => changed({ cumulative: cumulative.checked ? "1" : null }) });
  const numberLine = h("label.field", "Number", number_.input, number_.list);
  const bys = h("fieldset", h("legend", "Break down by"), by.map(({ input, list }, i) => { input.setAttribute("aria-label", `Break down by, ${["first", "second", "third"][i]} field`); return [input, list]; }));
  numberField.remove();

  function measured() {
    const chosen = measure.value;
    const needs = OF_NUMBER.some(([name]) => name === chosen);
    numberLine.hidden = !needs;
    const value = needs ? `${chosen}:${number_.input.value.trim() || "properties.price"}` : chosen;
    if (needs && !number_.input.value) number_.input.value = "properties.price";
    if ((state.measure ?? "events") !== value) changed({ measure: value });
  }
  numberLine.hidden = !OF_NUMBER.some(([name]) => name === fn);

  function pickInterval() {
    const range = rangeOf(state);
    const names = possible(range);
    const now = names.includes(state.interval) ? state.interval : suits(range);
    const select = choice(names.map((name) => [name, `By ${name}`]), now, (value) => changed({ interval: value }));
    select.setAttribute("aria-label", "Interval");
    fill(intervals, select);
  }

  async function properties() {
    try {
      const found = records(await sql(PROPERTIES, signal, { event: state.event ?? "" })).map(({ name }) => `properties.${name}`);
      by.forEach(({ suggest }) => suggest([...FIELDS, ...found]));
      number_.suggest(found);
    } catch { /* suggestions only */ }
  }

  function body(saves = false) {
    const range = rangeOf(state);
    const names = possible(range);
    const interval = names.includes(state.interval) ? state.interval : suits(range);
    const bounds = whole(range, INTERVALS[interval]);
    const chosen = breakdowns(state);
    return {
      event: state.event || null, measure: state.measure ?? "events", interval,
      ...(saves ? lasting(range, interval) : { from: iso(bounds.from), to: iso(bounds.to) }),
      ...(chosen.length ? { breakdown: chosen.length === 1 ? chosen[0] : chosen } : {}),
      ...(conditions(filters).length ? { filters: conditions(filters) } : {}),
      ...(chosen.length ? { limit: SERIES_MAX } : {}),
      ...(state.compare === "previous" ? { compare: "previous" } : {}),
      ...(state.cumulative === "1" ? { cumulative: true } : {}),
    };
  }

  function draw() {
    pickInterval();
    return show(result, async (mine) => {
      const query = body();
      answer = await trends(query, mine);
      return drawn(answer, query, state.chart, (kind) => changed({ chart: kind }));
    }, signal);
  }

  fill(actions,
    h("button", { type: "button", onclick: async ({ currentTarget }) => share(currentTarget) }, "Copy link"),
    saveButton("trends", () => body(true), signal),
    downloads(() => ({ path: "/v1/query/trends", body: body(), name: `trends-${state.event ?? "all"}` }), (error) => result.prepend(wrong(error)), signal));
  const form = h("section.card", h("h2", "Show"), h("div.form",
    field("Measure", measure), numberLine, h("label.field", "Of event", event.input, event.list), bys,
    filterList(filters, () => changed({ filters: conditions(filters).length ? JSON.stringify(filters.filter(({ field: named }) => named)) : null })),
    h("fieldset", h("legend", "And"), h("label", compare, "Compare with the period before"), h("label", cumulative, "Add up over time"))));
  fill(root, head("Explore", "Any measure over time", rangePicker(state, (changes) => { changed(changes); }), intervals, actions),
    h("div.split", form, h("section.card", result)));
  sql(EVENTS, signal).then(({ rows }) => event.suggest(rows.map(([found]) => found))).catch(() => {});
  properties();
  repeat(() => (state.range || !state.from ? draw() : answer ? null : draw()), REFRESH_MS, signal);
}

function breakdowns(state) {
  return (state.by ?? "").split(",").map((each) => each.trim()).filter(Boolean).slice(0, 3);
}

async function share(button) {
  try {
    await navigator.clipboard.writeText(location.href);
    fill(button, "Copied");
    say("The link is on the clipboard");
  } catch {
    window.prompt("Copy this link", location.href);
  }
  setTimeout(() => fill(button, "Copy link"), 1500);
}

/** Series of an answer's column, one for each value (or combination of values) of the break-downs. */
function seriesOf({ columns, rows }, column, times, fillsZero) {
  const place = new Map(times.map((at, i) => [at, i]));
  const value = columns.indexOf(column);
  const labels = columns.map((_, i) => i).filter((i) => columns[i].startsWith("breakdown"));
  const found = new Map();
  for (const row of rows) {
    const name = labels.map((i) => label(row[i])).join(" · ");
    if (!found.has(name)) found.set(name, times.map(() => (fillsZero ? 0 : null)));
    const at = place.get(Date.parse(row[0]));
    if (at !== undefined) found.get(name)[at] = row[value] === null ? null : Number(row[value]);
  }
  return found;
}

const isOther = (name) => name !== "" && name.split(" · ").every((part) => part === "other");
const total = (values) => values.reduce((sum, each) => sum + (each ?? 0), 0);

function drawn(found, query, chosen, choose) {
  const step = INTERVALS[query.interval];
  const first = Math.floor(Date.parse(query.from) / step) * step;
  const times = Array.from({ length: Math.ceil((Date.parse(query.to) - first) / step) }, (_, i) => first + i * step);
  const additive = query.measure === "events" || query.measure.startsWith("sum:");
  const fillsZero = !query.cumulative && (!query.measure.includes(":") || additive);
  const title = `${titleOf(query.measure)}${query.event ? ` of ${query.event}` : ""}`;
  const now = [...seriesOf(found, "value", times, fillsZero)];
  const past = query.compare ? [...seriesOf(found, "previous", times, fillsZero)] : [];
  if (![...now, ...past].some(([, values]) => values.some(Boolean))) {
    return [empty("Nothing in this selection", "Take a longer time range, another event, or fewer filters."), origin(found.meta)];
  }
  now.sort((a, b) => isOther(a[0]) - isOther(b[0]) || total(b[1]) - total(a[1]));
  const colours = new Map(now.map(([name], i) => [name, isOther(name) ? OTHERS : i % OTHERS]));
  const series = [
    ...now.map(([name, values]) => ({ name: name || title, values, colour: colours.get(name) })),
    ...past.map(([name, values]) => ({ name: `${name || title}, before`, values, colour: colours.get(name), past: true })),
  ];
  const stacks = additive && !query.cumulative && (!past.length || now.length === 1);
  const kinds = stacks ? KINDS : KINDS.filter(([kind]) => kind === "line" || (kind === "bar" && now.length === 1));
  const kind = kinds.some(([each]) => each === chosen) ? chosen : "line";
  const rows = times.map((at, i) => [at, ...series.map(({ values }) => values[i])]).reverse();
  return [
    h("div.head.flat", h("div", h("h2", `${title} by ${query.interval}${query.cumulative ? ", added up" : ""}`), origin(found.meta)), kinds.length > 1 && segments("Chart", kinds, kind, choose)),
    seriesChart({ title, times, series, intervalMs: step, kind, openFrom: openFrom(found.meta), expected: expectedOf(found.meta), height: 340, interval: query.interval }),
    table({ caption: `${title} by ${query.interval}`, rows, columns: [
      { name: query.interval === "day" ? "Day (UTC)" : "From", num: false, format: (at) => moment(at, query.interval) },
      ...series.map(({ name }) => ({ name, num: true, format: number }))] }),
  ];
}

function titleOf(measure) {
  const [name, of] = measure.split(/:(.*)/s);
  const known = [...PLAIN, ...OF_NUMBER].find(([key]) => key === name)?.[1] ?? measure;
  return of ? `${known} ${of}` : known;
}
