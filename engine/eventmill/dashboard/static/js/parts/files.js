// Answers as files: the server writes them, so they hold every row and are safe to open in a spreadsheet.

import { bytesOf } from "../api.js";
import { h } from "../dom.js";

const FORMS = [["CSV", "csv", "text/csv"], ["Arrow", "arrows", "application/vnd.apache.arrow.stream"]];

/**
 * A button for each form. `question()` gives `{path, body, name}` of what is shown, or null where nothing is; `wrong(error)` shows
 * what went wrong.
 */
export function downloads(question, wrong, signal) {
  return FORMS.map(([title, ending, accept]) => h("button", { type: "button", title: `Download as ${title}`, onclick: async () => {
    const asked = question();
    if (!asked) return;
    try {
      save(`${asked.name}.${ending}`, await bytesOf(asked.path, asked.body, accept, signal));
    } catch (error) {
      wrong(error);
    }
  } }, title));
}

function save(name, content) {
  const url = URL.createObjectURL(content);
  h("a", { href: url, download: name.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
