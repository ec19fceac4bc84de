// Events as they are stored, the newest first.

import { records, sql } from "../api.js";
import { choice, fill, h, suggested } from "../dom.js";
import { moment, number } from "../format.js";
import { card, head } from "../parts/page.js";
import { noEvents, repeat, wrong } from "../parts/states.js";

const LOOK_MS = 1_500;
const SHOWN = 100;
const FIRST = "SELECT max(inserted_at) AS newest FROM events";
/** Rows inserted since the last look. Those of one insert have one time, so that none falls between two looks. */
const SINCE = `SELECT inserted_at, event_id, event, type, timestamp, platform, app_version, device_id, user_id, properties FROM events
WHERE inserted_at > fromUnixTimestamp64Milli({since:Int64}, 'UTC') AND ({event:String} = '' OR event = {event:String}) AND ({who:String} = '' OR user_id = {who:String} OR device_id = {who:String})
ORDER BY inserted_at DESC, timestamp DESC LIMIT ${SHOWN}`;
/** How far back the first look goes, so that a quiet server shows something. */
const BEFORE_MS = 60_000;

export function render(root, { params, keep, signal }) {
  const state = { event: params.event ?? "", who: params.who ?? "" };
  let since = null;
  let paused = false;
  let seen = 0;
  const body = h("tbody");
  const note = h("p.note", { role: "status" }, "Waiting for events");
  const problem = h("div");
  const again = (changes) => { Object.assign(state, changes); keep(changes); since = null; seen = 0; fill(body); look(); };
  const event = suggested({ value: state.event, placeholder: "All events", "aria-label": "Event", onchange: () => again({ event: event.input.value.trim() }) });
  const who = h("input", { type: "text", value: state.who, placeholder: "User or device id", "aria-label": "User or device id", onchange: () => again({ who: who.value.trim() }) });
  const pause = h("button.main", { type: "button", onclick: () => { paused = !paused; fill(pause, paused ? "Go on" : "Pause"); if (!paused) look(); } }, "Pause");
  fill(root, head("Live tail", "Events as they reach the real-time store", event.input, event.list, who, pause),
    card(null, null, note, problem, h("div.scroll.tall", { tabindex: "0", role: "region", "aria-label": "Newest events" }, h("table", h("caption.unseen", "Newest events"),
      h("thead", h("tr", ["Time", "Event", "Platform", "Version", "Who", "Properties"].map((name) => h("th", { scope: "col" }, name)))), body))));

  async function look() {
    if (paused) return;
    try {
      if (since === null) {
        const { rows } = await sql(FIRST, signal);
        const newest = Date.parse(rows[0]?.[0]);
        if (!(newest > 0)) { fill(problem, noEvents()); return; }
        since = newest - BEFORE_MS;
      }
      const found = records(await sql(SINCE, signal, { since, event: state.event, who: state.who }));
      fill(problem);
      if (found.length) {
        since = Date.parse(found[0].inserted_at);
        seen += found.length;
        body.prepend(...found.map(line));
        while (body.childElementCount > SHOWN) body.lastChild.remove();
      }
      fill(note, seen ? `${number(body.childElementCount)} shown${found.length === SHOWN ? `; more than ${SHOWN} at a time came, so some are left out` : ""}. Looks every ${LOOK_MS / 1000} s.` : "Nothing yet that fits; waiting.");
    } catch (error) {
      if (!signal.aborted) fill(problem, wrong(error, look));
    }
  }

  sql("SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500", signal).then(({ rows }) => event.suggest(rows.map(([name]) => name))).catch(() => {});
  repeat(look, LOOK_MS, signal);
}

function line({ event, type, timestamp, platform, app_version: version, device_id: device, user_id: user, properties }) {
  const id = user ?? device;
  return h("tr", h("td", moment(Date.parse(timestamp), "second")), h("th", { scope: "row" }, event, type !== "track" && event !== type && h("span.note", ` ${type}`)),
    h("td", platform ?? "–"), h("td", version ?? "–"), h("td.long", h("a", { href: `#/users?${new URLSearchParams({ id })}` }, user ?? device.slice(0, 8))),
    h("td.long", { title: properties }, h("code", properties)));
}
