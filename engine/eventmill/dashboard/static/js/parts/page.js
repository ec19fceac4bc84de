// What every page has: a heading with tools, cards, and a line on where an answer came from.

import { h } from "../dom.js";
import { duration, moment, number } from "../format.js";

export function head(title, about, ...tools) {
  return h("div.head", h("div", h("h1", title), about && h("p", about)), h("div.tools", tools));
}

export function card(title, note, ...content) {
  return h("section.card", title && h("header", h("h2", title), note && (note instanceof Node ? note : h("p", note))), content);
}

/** A number with its name. */
export function figure(name, value, more) {
  return h("section.card.figure", h("span.label", name), h("span.value", value), h("span.more", more));
}

const STORES = { realtime: "real time", lake: "lake" };

/** `Answered from lake and real time in 41 ms · …` */
export function origin(meta) {
  if (!meta) return null;
  const stores = (meta.stores ?? []).map((store) => STORES[store] ?? store);
  const parts = [`Answered from ${stores.join(" and ") || "no store"} in ${duration(meta.elapsed_ms)}`];
  if (meta.cached === true) parts.push("cached");
  if (meta.estimated_rows) parts.push(`about ${number(meta.estimated_rows)} rows read`);
  const boundary = Date.parse(meta.boundary);
  if (boundary && stores.length > 1) parts.push(`lake until ${moment(boundary)}`);
  const complete = Date.parse(meta.complete_until);
  if (complete && complete < Date.now()) parts.push(`complete until ${moment(complete)}`);
  return h("p.note", `${parts.join(" · ")}.`);
}

/** The share of its events that each provisional bucket (its start in ms) still waits for. */
export function expectedOf(meta) {
  return new Map((meta?.provisional ?? []).map(({ time, expected_share: part }) => [Date.parse(time), part]));
}

/** From when on buckets are not final. */
export function openFrom(meta, now = Date.now()) {
  const first = Date.parse(meta?.provisional?.[0]?.time);
  return Number.isNaN(first) ? now : Math.min(first, now);
}
