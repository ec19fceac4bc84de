// Events as they are stored, the newest first.

import { sql, stream } from "../api.js";
import { choice, fill, h, suggested } from "../dom.js";
import { moment, number } from "../format.js";
import { card, head } from "../parts/page.js";
import { noEvents, repeat, wrong } from "../parts/states.js";

const SHOWN = 100;
/** Between two answers; the server waits for events itself. */
const AGAIN_MS = 500;

export function render(root, { params, keep, signal }) {
  const state = { event: params.event ?? "", who: params.who ?? "" };
  let after = null;
  let looking = null;
  let paused = false;
  let seen = 0;
  const body = h("tbody");
  const note = h("p.note", { role: "status" }, "Waiting for events");
  const problem = h("div");
  const again = (changes) => { Object.assign(state, changes); keep(changes); after = null; seen = 0; fill(body); look(); };
  const event = suggested({ value: state.event, placeholder: "All events", "aria-label": "Event", onchange: () => again({ event: event.input.value.trim() }) });
  const who = h("input", { type: "text", value: state.who, placeholder: "User or device id", "aria-label": "User or device id", onchange: () => again({ who: who.value.trim() }) });
  const pause = h("button.main", { type: "button", onclick: () => { paused = !paused; fill(pause, paused ? "Go on" : "Pause"); if (!paused) look(); } }, "Pause");
  fill(root, head("Live tail", "Events as they reach the real-time store", event.input, event.list, who, pause),
    card(null, null, note, problem, h("div.scroll.tall", { tabindex: "0", role: "region", "aria-label": "Newest events" }, h("table", h("caption.unseen", "Newest events"),
      h("thead", h("tr", ["Time", "Event", "Platform", "Version", "Who", "Properties"].map((name) => h("th", { scope: "col" }, name)))), body))));

  async function look() {
    if (paused) return;
    const asked = new AbortController();
    looking?.abort();
    looking = asked;
    const query = new URLSearchParams(Object.entries({ event: state.event, id: state.who, after }).filter(([, value]) => value));
    try {
      const found = [];
      let skipped = false;
      await stream(`/v1/live?${query}`, null, (data, kind, id) => {
        if (id !== null) after = id;
        if (kind === "skipped") skipped = true;
        else if (data) found.push(data);
      }, AbortSignal.any([asked.signal, signal]));
      if (asked.signal.aborted) return;
      fill(problem, after === null && noEvents());
      if (found.length) {
        seen += found.length;
        body.prepend(...found.reverse().map(line));
        while (body.childElementCount > SHOWN) body.lastChild.remove();
      }
      fill(note, seen ? `${number(body.childElementCount)} shown${skipped ? "; more came at a time than are shown, so some are left out" : ""}.` : "Nothing yet that fits; waiting.");
    } catch (error) {
      if (!signal.aborted && !asked.signal.aborted) fill(problem, wrong(error, look));
    }
  }

  sql("SELECT event, sum(events) AS n FROM events_1m GROUP BY event ORDER BY n DESC LIMIT 500", signal).then(({ rows }) => event.suggest(rows.map(([name]) => name))).catch(() => {});
  repeat(look, AGAIN_MS, signal);
}

function line({ event, type, timestamp, platform, app_version: version, device_id: device, user_id: user, properties }) {
  const id = user ?? device;
  return h("tr", h("td", moment(Date.parse(timestamp), "second")), h("th", { scope: "row" }, event, type !== "track" && event !== type && h("span.note", ` ${type}`)),
    h("td", platform ?? "–"), h("td", version ?? "–"), h("td.long", h("a", { href: `#/users?${new URLSearchParams({ id })}` }, user ?? device.slice(0, 8))),
    h("td.long", { title: properties }, h("code", properties)));
}
