// Saved questions: all of them, and the bare answer of one.

import { get, post, remove } from "../api.js";
import { fill, h } from "../dom.js";
import { moment, number } from "../format.js";
import { card, head, origin } from "../parts/page.js";
import { downloads } from "../parts/files.js";
import { place } from "../parts/places.js";
import { pathOf } from "../parts/saving.js";
import { empty, show, wrong } from "../parts/states.js";
import { table } from "../parts/table.js";

export function render(root, { params, signal }) {
  const slot = h("div.stack");
  if (params.name) {
    const run = { path: `${pathOf(params.name)}/run`, body: {}, name: params.name };
    fill(root, head(params.name, "A saved question, asked now", downloads(() => run, (error) => slot.prepend(wrong(error)), signal),
      h("a", { href: "#/saved" }, "All saved questions")), h("section.card", slot));
    show(slot, (mine) => answer(params.name, run, mine), signal);
    return;
  }
  const draw = () => show(slot, (mine) => list(draw, slot, signal, mine), signal);
  fill(root, head("Saved", "Questions by name"), h("section.card", slot));
  draw();
}

async function list(again, slot, signal, mine) {
  const { saved } = await get("/v1/saved", mine);
  if (!saved.length) return empty("Nothing is saved yet", "Explore, Funnels, Retention, Paths, Sessions and SQL have a Save button.");
  const erase = (name) => {
    let sure = false;
    return h("button.small.ghost", { type: "button", "aria-label": `Delete ${name}`, onclick: async ({ currentTarget }) => {
      if (!sure) { sure = true; fill(currentTarget, "Really delete?"); return; }
      try { await remove(pathOf(name), signal); again(); } catch (error) { slot.prepend(wrong(error)); }
    } }, "Delete");
  };
  return table({ caption: "Saved questions", rows: saved.map((each) => [each.name, each.kind, Date.parse(each.saved_at), each]), columns: [
    { name: "Name", cell: (name, row) => h("a", { href: place(row[3]) }, name) },
    { name: "Kind", num: false }, { name: "Saved", num: false, format: (at) => moment(at) },
    { name: "Delete", cell: ({ name }) => erase(name) }] });
}

async function answer(name, run, signal) {
  const [{ kind, query }, found] = await Promise.all([get(pathOf(name), signal), post(run.path, run.body, signal)]);
  const asked = h("details", h("summary", `The question (${kind})`), h("pre.payload", JSON.stringify(query, null, 2)));
  if (!found.rows.length) return [empty("No rows", "The question found nothing."), asked, origin(found.meta)];
  const caption = `${number(found.rows.length)} ${found.rows.length === 1 ? "row" : "rows"}`;
  return [h("h2", caption), table({ caption: `Answer, ${caption}`, columns: found.columns.map((each) => ({ name: each, long: true })), rows: found.rows, heads: false }), asked, origin(found.meta)];
}
