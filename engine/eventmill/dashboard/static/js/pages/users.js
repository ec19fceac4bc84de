// One user's or device's events, session by session.

import { records, sql } from "../api.js";
import { fill, h } from "../dom.js";
import { duration, moment, number, utc } from "../format.js";
import { card, figure, head, origin } from "../parts/page.js";
import { empty, show } from "../parts/states.js";
import { storeOf, storePicker } from "../parts/store.js";

const EVENTS_MAX = 1_000;
const COLUMNS = "event, type, timestamp, toString(session_id) AS session, device_id, user_id, platform, app_version, os_version, device_model, country, properties";
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
      const table = storeOf(state);
      const answer = await sql(`SELECT ${COLUMNS} FROM ${table} WHERE user_id = {id:String} OR device_id = {id:String} OR anonymous_id = {id:String} ORDER BY timestamp DESC LIMIT ${EVENTS_MAX}`, mine, { id: state.id });
      const found = records(answer);
      if (!found.length) return h("section.card", empty(`No events of ${state.id}`, table === "events" ? "Look in the lake for older ones, and check the spelling." : "Check the spelling."));
      return timeline(found, answer.meta);
    }, signal);
  }

  fill(root, head("User timeline", "What one user or device did, session by session", storePicker(state, changed), find), result);
  draw();
}

async function suggestions(signal, use) {
  const { rows } = await sql(RECENT, signal);
  if (!rows.length) return h("section.card", empty("Whose events?", "Give a user id or a device id above."));
  return card("Whose events?", "Users seen last", h("div.tools", rows.map(([id]) => h("button.small.ghost", { type: "button", onclick: () => use(id) }, id))));
}

function timeline(found, meta) {
  const sessions = [];
  for (const event of found) {
    if (sessions.at(-1)?.id !== event.session) sessions.push({ id: event.session, events: [] });
    sessions.at(-1).events.push(event);
  }
  const count = (name) => new Set(found.map((event) => event[name]).filter((value) => value !== null)).size;
  const [last, first] = [found[0], found.at(-1)];
  return [
    h("div.grid.figures", [
      figure("Events", `${number(found.length)}${found.length === EVENTS_MAX ? "+" : ""}`, found.length === EVENTS_MAX ? "the newest" : `since ${moment(Date.parse(first.timestamp))}`),
      figure("Sessions", number(count("session")), `${number(count("device_id"))} ${count("device_id") === 1 ? "device" : "devices"}`),
      figure("Last seen", moment(Date.parse(last.timestamp)), utc(Date.parse(last.timestamp))),
      figure("With", last.device_model ?? last.platform ?? "–", [last.platform, last.os_version, last.app_version && `app ${last.app_version}`, last.country].filter(Boolean).join(", ")),
    ]),
    origin(meta),
    sessions.map(({ events }) => session(events)),
  ];
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
