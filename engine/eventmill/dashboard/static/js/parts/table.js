// A table that sorts by its headings.

import { fill, h } from "../dom.js";
import { label, number } from "../format.js";

const ROWS_MAX = 500;

/**
 * `columns`: names, or `{name, format, num, cell}` objects (`cell(value, row)` makes an element); `rows`: arrays. Shows the
 * first 500 rows in the order chosen, and says when there are more.
 */
export function table({ caption, columns, rows, sortable = true, low = false, heads = true, most = ROWS_MAX }) {
  const shown = columns.map((column, i) => ({
    num: rows.length > 0 && rows.every((row) => row[i] === null || typeof row[i] === "number") && rows.some((row) => row[i] !== null),
    ...(typeof column === "string" ? { name: column } : column),
  }));
  let by = null;
  let down = true;
  const body = h("tbody");
  const titles = shown.map((column, i) => h("th", { scope: "col", class: column.num ? "num" : null, "aria-sort": "none" },
    sortable && rows.length > 1 ? h("button", { type: "button", onclick: () => sort(i) }, column.name) : column.name));
  const note = h("caption.unseen", caption);

  function sort(i) {
    down = by === i ? !down : shown[i].num;
    by = i;
    titles.forEach((title, j) => title.setAttribute("aria-sort", j === i ? (down ? "descending" : "ascending") : "none"));
    draw();
  }

  function draw() {
    const order = by === null ? rows : [...rows].sort((a, b) => compare(a[by], b[by]) * (down ? -1 : 1));
    fill(body, order.slice(0, most).map((row) => h("tr", shown.map((column, i) => cell(column, row[i], row, i === 0 && heads)))));
  }

  draw();
  const more = rows.length > most && h("p.note", `The first ${number(most)} of ${number(rows.length)} rows; the download has all of them.`);
  return h("div.stack", h(`div.scroll${low ? ".low" : ""}`, { tabindex: "0", role: "region", "aria-label": caption }, h("table", note, h("thead", h("tr", titles)), body)), more);
}

function cell(column, value, row, isHead) {
  const kind = `${isHead ? "th" : "td"}${column.num ? ".num" : ""}${column.long ? ".long" : ""}${column.wrap ? ".wrap" : ""}`;
  const attributes = { ...(isHead ? { scope: "row" } : {}), ...(column.long ? { title: String(value ?? "") } : {}) };
  if (column.cell) return h(kind, attributes, column.cell(value, row));
  if (value === null || value === undefined) return h(kind, attributes, h("span.null", column.num ? "–" : label(null)));
  return h(kind, attributes, column.format ? column.format(value) : typeof value === "number" && column.num ? number(value) : String(typeof value === "object" ? JSON.stringify(value) : value));
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return a < b ? -1 : 1;
}
