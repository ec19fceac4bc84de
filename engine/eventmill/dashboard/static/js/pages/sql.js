// Read-only SQL, with the tables beside it.

import { sql } from "../api.js";
import { fill, h, say } from "../dom.js";
import { number } from "../format.js";
import { downloads } from "../parts/files.js";
import { card, head, origin } from "../parts/page.js";
import { saveButton } from "../parts/saving.js";
import { empty, show, wrong } from "../parts/states.js";
import { table } from "../parts/table.js";

const TABLES = [
  ["events", "the last hours, in the real-time store"],
  ["events_1m", "events rolled up to minutes"],
  ["events_1h", "… to hours"],
  ["events_1d", "… to days"],
  ["sessions", "sessions of the real-time store"],
  ["lake.events", "everything, in the lake"],
];
const START = "SELECT event, count() AS events, uniq(device_id) AS devices\nFROM events\nWHERE timestamp >= now() - INTERVAL 1 DAY\nGROUP BY event\nORDER BY events DESC\nLIMIT 50";
const EXAMPLES = [
  ["Events by name", START],
  ["Revenue by hour", "SELECT toStartOfHour(timestamp) AS hour, count() AS orders,\n  round(sum(JSONExtractFloat(properties, 'value')), 2) AS revenue\nFROM events\nWHERE event = 'Order Completed'\nGROUP BY hour\nORDER BY hour"],
  ["Longest sessions", "SELECT session_id, any(device_id) AS device, sum(events) AS events,\n  dateDiff('minute', min(started), max(ended)) AS minutes\nFROM sessions\nGROUP BY session_id\nORDER BY minutes DESC\nLIMIT 20"],
  ["How late events come", "SELECT platform, quantiles(0.5, 0.95, 0.99)(dateDiff('second', timestamp, received_at)) AS seconds_late\nFROM events\nGROUP BY platform"],
];

export function render(root, { params, keep, signal }) {
  const result = h("div.stack");
  const editor = h("textarea.code", { rows: 9, spellcheck: "false", autocapitalize: "off", "aria-label": "Query", "aria-describedby": "sql-keys", value: params.q ?? START });
  const files = h("div.tools");
  let ran = "";

  function run() {
    ran = editor.value;
    keep({ q: ran });
    return show(result, async (mine) => {
      const answer = await sql(ran, mine);
      say(`${answer.rows.length} rows`);
      const caption = `${number(answer.rows.length)} ${answer.rows.length === 1 ? "row" : "rows"}`;
      if (!answer.rows.length) return [empty("No rows", "The query ran, and found nothing."), origin(answer.meta)];
      return [h("div.head.flat", h("h2", caption), files), table({ caption: `Result, ${caption}`, columns: answer.columns.map((name) => ({ name, long: true })), rows: answer.rows, heads: false }), origin(answer.meta)];
    }, signal);
  }

  fill(files, downloads(() => ({ path: "/v1/query/sql", body: { query: ran }, name: "query" }), (error) => result.prepend(wrong(error)), signal));
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  });
  const examples = EXAMPLES.map(([name, text]) => h("button.small.ghost", { type: "button", onclick: () => { editor.value = text; run(); } }, name));
  const schema = h("div.stack");
  fill(root, head("SQL", "One SELECT over the real-time store or the lake, in ClickHouse's dialect"),
    h("div.split.after", card("Tables", null, schema), h("div.stack",
      card(null, null, editor, h("div.tools", h("button.main", { type: "button", onclick: run }, "Run"), saveButton("sql", () => ({ query: editor.value }), signal), h("span.note", { id: "sql-keys" }, "or Ctrl+Enter. A type with ? may be null.")), h("div.tools", h("span.note", "Examples"), examples)),
      h("section.card", result))));
  fill(result, empty("Nothing has been run yet", "Write a query, or take one of the examples above."));
  browse(schema, (text) => insert(editor, text), signal);
  if (params.q) run();
}

/** Put text where the cursor stands. */
function insert(editor, text) {
  editor.setRangeText(text, editor.selectionStart, editor.selectionEnd, "end");
  editor.focus();
}

function browse(slot, use, signal) {
  fill(slot, TABLES.map(([name, about], i) => {
    const columns = h("div.stack");
    let known = false;
    const details = h("details", { ontoggle: () => {
      if (details.open && !known) { known = true; show(columns, (mine) => columnsOf(name, use, mine), signal); }
    } }, h("summary", h("code", name), ` ${about}`), columns);
    if (i === 0) details.open = true;
    return details;
  }));
}

async function columnsOf(name, use, signal) {
  const { columns } = await sql(`SELECT * FROM ${name} LIMIT 0`, signal);
  const { rows } = await sql(`SELECT ${columns.map((column) => `toTypeName(${column})`).join(", ")} FROM ${name} LIMIT 1`, signal);
  const short = (kind) => kind.replace(/LowCardinality\((.*)\)/, "$1").replace(/^(Simple)?AggregateFunction\((\w+)(\(\d+\))?, (.*)\)$/, "$2 of $4").replace(", 'UTC'", "").replace(/^Nullable\((.*)\)$/, "$1?");
  return h("ul.columns", columns.map((column, i) => h("li",
    h("button.small.ghost", { type: "button", title: `Insert ${column}`, onclick: () => use(column) }, h("code", column)),
    rows.length > 0 && h("span.note", { title: rows[0][i] }, short(rows[0][i])))));
}
