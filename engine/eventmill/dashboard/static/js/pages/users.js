// One user's or device's events, session by session.

import { query, records, sql } from "../api.js";
import { fill, h } from "../dom.js";
import { duration, moment, number, utc } from "../format.js";
import { card, figure, head, origin } from "../parts/page.js";
import { empty, show } from "../parts/states.js";

const EVENTS = 500;
const RECENT = "SELECT user_id, count() AS events, max(timestamp) AS last FROM events WHERE user_id IS NOT NULL AND timestamp >= now() - INTERVAL 1 DAY GROUP BY user_id ORDER BY last DESC LIMIT 12";

export function render(root, { params, keep, signal }) {
  const state = { ...params };
  const result = h("div.stack");
  const input = h("input", { type: "search", value: state.id ?? "", placeholder: "user-42 or a device id", "aria-label": "User id, anonymous id or device id", size: "34" });
  const changed = (changes) => { Object.assign(state, changes); keep(changes); draw(); };
  const find = h("form.tools", { onsubmit: (event) => { event.preventDefault(); changed({ id: input.value.trim() || null }); } }, input, h("button.main", "Find"));

  function draw() {
    return show(result, async (mine) => {
      if (!state.id) return suggestions(mine, (id) => { input.value = id; changed({ id }); });
      const more = h("div.stack");
      const found = await page(state.id, null, mine);
      if (!found.events.length) return h("section.card", empty(`No events of ${state.id}`, "None in the last 90 days; check the spelling."));
      next(more, state.id, found.meta.cursor, found.events.at(-1).session_id, signal);
      return [...summary(found), origin(found.meta), sessionsOf(found.events), more];
    }, signal);
  }

  fill(root, head("User timeline", "What one user or device did, session by session", find), result);
  draw();
}

async function suggestions(signal, use) {
  const { rows } = await sql(RECENT, signal);
  if (!rows.length) return h("section.card", empty("Whose events?", "Give a user id or a device id above."));
  return card("Whose events?", "Users seen last", h("div.tools", rows.map(([id]) => h("button.small.ghost", { type: "button", onclick: () => use(id) }, id))));
}

async function page(id, cursor, signal) {
  const answer = await query("timeline", { id, limit: EVENTS, ...(cursor && { cursor }) }, signal);
  return { events: records(answer), meta: answer.meta };
}

/** A button that adds the page behind `cursor`; nothing after the last one. */
function next(slot, id, cursor, last, signal) {
  if (!cursor) return fill(slot);
  const further = h("button", { type: "button", onclick: () => show(slot, async (mine) => {
    const { events, meta } = await page(id, cursor, mine);
    const more = h("div.stack");
    next(more, id, meta.cursor, events.at(-1)?.session_id, signal);
    return [events[0]?.session_id === last && h("p.note", "The session goes on:"), sessionsOf(events), more];
  }, signal) }, "Earlier events");
  return fill(slot, further);
}

function summary({ events, meta }) {
  const count = (name) => new Set(events.map((event) => event[name]).filter((value) => value !== null)).size;
  const [last, first] = [events[0], events.at(-1)];
  return [h("div.grid.figures", [
    figure("Events", `${number(events.length)}${meta.cursor ? "+" : ""}`, meta.cursor ? "the newest" : `since ${moment(Date.parse(first.timestamp))}`),
    figure("Sessions", number(count("session_id")), `${number(count("device_id"))} ${count("device_id") === 1 ? "device" : "devices"}`),
    figure("Last seen", moment(Date.parse(last.timestamp)), utc(Date.parse(last.timestamp))),
    figure("With", last.device_model ?? last.platform ?? "–", [last.platform, last.os_version, last.app_version && `app ${last.app_version}`, last.country].filter(Boolean).join(", ")),
  ])];
}

function sessionsOf(events) {
  const sessions = [];
  for (const event of events) {
    if (sessions.at(-1)?.[0].session_id !== event.session_id) sessions.push([]);
    sessions.at(-1).push(event);
  }
  return sessions.map(session);
}

function session(events) {
  const [end, start] = [Date.parse(events[0].timestamp), Date.parse(events.at(-1).timestamp)];
  return card(moment(start), `${number(events.length)} ${events.length === 1 ? "event" : "events"} in ${duration(end - start)}`, h("ol.timeline", [...events].reverse().map((event, i, all) => {
    const at = Date.parse(event.timestamp);
    const gap = i ? at - Date.parse(all[i - 1].timestamp) : 0;
    return h("li", h("time", { datetime: event.timestamp, title: utc(at) }, moment(at, "second").split(", ").at(-1)), h("div", h("strong", event.event), i > 0 && h("span.note", ` after ${duration(gap)}`),
      event.properties !== "{}" && h("details", h("summary", "Properties"), h("pre.payload", JSON.stringify(JSON.parse(event.properties), null, 2)))));
  })));
}
