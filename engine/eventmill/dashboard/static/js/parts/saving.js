// Saving what a page shows under a name.

import { put } from "../api.js";
import { field, fill, h, say } from "../dom.js";

const NAME_CHARS_MAX = 100;

/** Where a saved question lies on the server. */
export const pathOf = (name) => `/v1/saved/${encodeURIComponent(name)}`;

/** A button that asks for a name. `question()` gives the body of a question of this kind. */
export function saveButton(kind, question, signal) {
  return h("button", { type: "button", onclick: () => ask(kind, question(), signal) }, "Save");
}

function ask(kind, query, signal) {
  const name = h("input", { type: "text", autocomplete: "off", required: true, maxlength: NAME_CHARS_MAX });
  const problem = h("p.down", { role: "alert" });
  const dialog = h("dialog", { "aria-labelledby": "save-title" },
    h("form.form", { onsubmit: (event) => { event.preventDefault(); save(); } },
      h("h2", { id: "save-title" }, "Save this question"),
      h("p.note", "Under Saved, for all who use this server with your key's project. A name that is taken is written over."),
      field("Name", name), problem,
      h("div.row", h("button.main", "Save"), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));

  async function save() {
    try {
      await put(pathOf(name.value.trim()), { kind, query }, signal);
      say(`Saved as ${name.value.trim()}`);
      dialog.close();
    } catch (error) {
      fill(problem, error.message);
    }
  }

  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
