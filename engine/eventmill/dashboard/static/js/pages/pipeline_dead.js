// Dead letters by reason, with samples, and their second chance.

import { get, post } from "../api.js";
import { meters } from "../chart/small.js";
import { choice, fill, h, say } from "../dom.js";
import { bytes, moment, number } from "../format.js";
import { empty, show, wrong } from "../parts/states.js";
import { table } from "../parts/table.js";

const SAMPLES = 20;

export function deadLetters(slot, signal) {
  let reason = "";
  const [counts, samples, outcome] = [h("div.stack"), h("div.stack"), h("div", { role: "status" })];
  const tools = h("div.tools");
  const split = h("div.split", counts, h("div.stack", tools, outcome, samples));
  fill(slot, split);

  async function load() {
    const found = await get("/v1/pipeline?hours=2160", signal);
    const reasons = Object.entries(found.dead_reasons);
    if (!reasons.length) { fill(slot, empty("No dead letters", "Every event that came could be read.")); return; }
    fill(counts, h("h3", "By reason, of all that came"), meters(reasons, { colour: 7 }));
    const pick = choice([["", "All reasons"], ...reasons.map(([name]) => [name, name])], reason, (chosen) => { reason = chosen; draw(); });
    pick.setAttribute("aria-label", "Reason");
    const button = h("button", { type: "button", onclick: () => replay(button) }, "Replay");
    fill(tools, pick, button, h("span.note", "decodes them again under today's settings; each is stored at most once"));
  }

  function draw() {
    return show(samples, async (mine) => {
      const { waiting, letters } = await get(`/v1/dead?${new URLSearchParams({ limit: SAMPLES, ...(reason ? { reason } : {}) })}`, mine);
      if (!letters.length) return empty("None waits for a replay", "They have been put back, or are past their retention.");
      return [h("p.note", `The newest ${letters.length} of ${number(waiting)} that wait.`), table({
        caption: "Samples of dead letters", low: true, sortable: false, heads: false, rows: letters.map((letter) => [letter.received_at, letter.reason, letter.detail, letter.payload, letter.bytes]),
        columns: [{ name: "Received", num: false, format: (at) => moment(at, "second") }, "Reason", { name: "Detail", wrap: true }, { name: "What was sent", cell: (text, row) => payload(text, row[4]) }, { name: "Size", num: true, format: bytes }] })];
    }, signal);
  }

  async function replay(button) {
    button.disabled = true;
    try {
      const report = await post("/v1/replay", { reasons: reason ? [reason] : [] }, signal);
      const text = `${number(report.replayed)} put back, ${number(report.still_dead)} still bad, ${number(report.skipped)} of other reasons.`;
      fill(outcome, h("p", text));
      say(text);
      await draw();
    } catch (error) {
      if (!signal.aborted) fill(outcome, wrong(error));
    }
    button.disabled = false;
  }

  show(counts, async () => { await load(); return [...counts.childNodes].filter((node) => !node.classList?.contains("wait")); }, signal);
  draw();
}

function payload(text, size) {
  const line = text.length > 90 ? `${text.slice(0, 90)}…` : text;
  return h("details", h("summary", h("code", line)), h("pre.payload", pretty(text, size)));
}

function pretty(text, size) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text.length < size ? `${text}\n… (cut)` : text;
  }
}
