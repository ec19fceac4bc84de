// Which store a page asks: the last hours in the real-time store, or everything in the lake.

import { choice } from "../dom.js";

const STORES = [["events", "Real-time store"], ["lake.events", "Lake (history)"]];

/** The table's name for a page's parameter; anything else than the two is the real-time store. */
export function storeOf(params) {
  return params.store === "lake" ? "lake.events" : "events";
}

export function storePicker(params, onchange) {
  const select = choice(STORES, storeOf(params), (value) => onchange({ store: value === "events" ? null : "lake" }));
  select.setAttribute("aria-label", "Store");
  return select;
}

/** A condition on the time of events, with parameters `from` and `to` in ms; the lake's partitions are named too. */
export function within(table) {
  const span = "timestamp >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND timestamp < fromUnixTimestamp64Milli({to:Int64}, 'UTC')";
  if (table === "events") return span;
  return `${span} AND event_date BETWEEN toDate32(fromUnixTimestamp64Milli({from:Int64}, 'UTC')) AND toDate32(fromUnixTimestamp64Milli({to:Int64}, 'UTC'))`;
}
