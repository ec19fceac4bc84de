// Where a saved question is opened: the page of its kind with its parameters, if that page can show it as it is.

import { readFilters } from "./filters.js";
import { PRESETS, iso } from "./range.js";

const NAMES_ONLY = ["event"];
const RELATIVE = /^-(\d+[hd])(?:\/\w+)?$/;

/** `from` and `to` as they are saved: a preset stays relative to now, on whole buckets of the interval if one is named. */
export function lasting({ preset, from, to }, interval) {
  return preset === "custom" ? { from: iso(from), to: iso(to) } : { from: `-${preset}${interval ? `/${interval}` : ""}`, to: "now" };
}

function span({ from, to }) {
  const [, preset] = (to === "now" && RELATIVE.exec(from)) || [];
  if (preset in PRESETS) return { range: preset };
  return Date.parse(from) < Date.parse(to) ? { from, to } : null;
}

const named = (selection) => !selection || Object.keys(selection).every((key) => NAMES_ONLY.includes(key));
const flat = (filters) => !filters || readFilters(JSON.stringify(filters)).length === filters.length;

/** Kind to its page, the keys that the page knows, and its parameters; null where it cannot show them. */
const PLACES = {
  trends: ["explore", ["event", "measure", "interval", "breakdown", "filters", "limit", "compare", "cumulative"],
    ({ event, measure, interval, breakdown, filters, compare, cumulative }) => flat(filters) && {
      event, measure, interval, by: [breakdown ?? []].flat().join(","), filters: filters?.length ? JSON.stringify(filters) : null, compare, cumulative: cumulative ? "1" : null }],
  funnel: ["funnels", ["steps", "window", "breakdown", "limit"], ({ steps, window, breakdown }) => steps.every(named) && /^\d+ms$/.test(window) && {
    steps: JSON.stringify(steps.map(({ event }) => event)), window: parseInt(window, 10), by: breakdown }],
  retention: ["retention", ["interval", "measure", "first", "returning"], ({ interval, measure, first, returning }) => named(first) && named(returning) && {
    unit: interval, who: measure, first: first?.event, again: returning?.event }],
  paths: ["paths", ["start", "end", "depth", "top"], ({ start, end, depth, top }) => ({ way: start ? "start" : "end", event: start ?? end, depth, top })],
  sessions: ["sessions", ["interval", "breakdown", "limit"], ({ breakdown }) => breakdown && { by: breakdown }],
};

/** The address of a saved question: its kind's page, or its bare answer. */
export function place({ name, kind, query }) {
  const answer = `#/saved?${new URLSearchParams({ name })}`;
  if (kind === "sql") return Object.keys(query.parameters ?? {}).length ? answer : address("sql", { q: query.query });
  const [page, keys, read] = PLACES[kind] ?? [];
  const { from, to, ...rest } = query;
  const time = span({ from, to });
  if (!page || !time || Object.keys(rest).some((key) => !keys.includes(key))) return answer;
  const params = read(rest);
  return params ? address(page, { ...params, ...time }) : answer;
}

function address(page, params) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `#/${page}?${new URLSearchParams(given)}`;
}
