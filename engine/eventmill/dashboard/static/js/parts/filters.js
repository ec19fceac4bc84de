// Conditions on events: field, comparison, value.

import { choice, fill, h, suggested } from "../dom.js";

const OPERATORS = [
  ["eq", "is"], ["ne", "is not"], ["in", "is one of"], ["not_in", "is none of"], ["contains", "contains"], ["gt", ">"], ["gte", "≥"],
  ["lt", "<"], ["lte", "≤"], ["is_set", "is set"], ["is_not_set", "is not set"],
];
const BARE = new Set(["is_set", "is_not_set"]);
const MANY = new Set(["in", "not_in"]);

export const FIELDS = [
  "platform", "app_version", "country", "os_version", "device_model", "locale", "segment", "tier", "event", "type", "user_id", "device_id",
  "session_id",
];

/** What a condition's text means: numbers are numbers for properties and the number columns, text elsewhere. */
function valueOf(field, op, text) {
  if (MANY.has(op)) return text.split(",").map((part) => valueOf(field, "eq", part.trim())).filter((part) => part !== "");
  const numeric = /^(properties|context)\./.test(field) || field === "session_id" || field === "flags";
  const isNumber = numeric && op !== "contains" && /^-?\d+(\.\d+)?$/.test(text);
  return isNumber && Number.isSafeInteger(Math.trunc(Number(text))) ? Number(text) : text;
}

/** As the API takes them; those still being written are left out. */
export function conditions(filters) {
  return filters.filter(({ field, op, value }) => field && (BARE.has(op) || String(value ?? "") !== ""))
    .map(({ field, op, value }) => (BARE.has(op) ? { field, op } : { field, op, value: valueOf(field, op, String(value)) }));
}

/** Filters from a link; anything else than a list of conditions is no filter. */
export function readFilters(text) {
  try {
    const found = JSON.parse(text ?? "[]");
    return Array.isArray(found) ? found.filter((each) => each && typeof each.field === "string" && OPERATORS.some(([op]) => op === each.op)) : [];
  } catch {
    return [];
  }
}

/** The control; `filters` is changed in place, `onchange()` is called after each change. `suggest(input)` may fill suggestions. */
export function filterList(filters, onchange, fields = FIELDS) {
  const list = h("div.form");

  function line(filter, i) {
    const name = suggested({ value: filter.field ?? "", placeholder: "field", "aria-label": `Filter ${i + 1}: field`, onchange: () => { filter.field = name.input.value.trim(); onchange(); } }, fields);
    const value = h("input", { type: "text", value: filter.value ?? "", placeholder: MANY.has(filter.op) ? "a, b, c" : "value", "aria-label": `Filter ${i + 1}: value`, hidden: BARE.has(filter.op),
      onchange: () => { filter.value = value.value; onchange(); } });
    const op = choice(OPERATORS, filter.op, (chosen) => { filter.op = chosen; value.hidden = BARE.has(chosen); value.placeholder = MANY.has(chosen) ? "a, b, c" : "value"; onchange(); });
    op.setAttribute("aria-label", `Filter ${i + 1}: comparison`);
    return h("div.line", h("div.row", name.input, name.list, h("button.small.ghost", { type: "button", "aria-label": `Remove filter ${i + 1}`, onclick: () => { filters.splice(i, 1); draw(); onchange(); } }, "✕")), h("div.row", op, value));
  }

  function draw() {
    fill(list, filters.map(line), h("button.small.ghost", { type: "button", onclick: () => { filters.push({ field: "", op: "eq", value: "" }); draw(); list.querySelector(".line:last-of-type input")?.focus(); } }, "+ Add filter"));
  }

  draw();
  return h("fieldset", h("legend", "Filters"), list);
}
