// Asking the server. Errors carry the API's own words; a 401 asks the reader for a key, once.

import { field, h } from "./dom.js";

const KEY = "eventmill.key";
const TIMEOUT_MS = 60_000;

/** What the API said when it refused; `status` is 0 when nothing answered. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function ask(path, options, again = true) {
  let answer;
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(options.signal ? [options.signal] : [])];
  try {
    // Without credentials of its own the browser does not put its password window before our question for a key.
    answer = await fetch(path, { ...options, credentials: "omit", headers: headers(options.headers), signal: AbortSignal.any(signals) });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const slow = error.name === "TimeoutError";
    throw new ApiError(0, slow ? `no answer within ${TIMEOUT_MS / 1000} s; narrow the time range` : "the server does not answer; is eventmill serve running?");
  }
  if (answer.status === 401 && again && (await askForKey())) return ask(path, options, false);
  if (!answer.ok) throw new ApiError(answer.status, await words(answer));
  return answer;
}

async function words(answer) {
  const text = await answer.text();
  try {
    const { error, message, hint } = JSON.parse(text);
    const said = typeof error === "string" ? error : (error?.message ?? message ?? text);
    return typeof hint === "string" && !said.includes(hint) ? `${said}: ${hint}` : said;
  } catch {
    return text.slice(0, 500) || `the server answered ${answer.status}`;
  }
}

/** GET, as JSON. */
export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

/** POST JSON, as JSON. */
export async function post(path, body, signal) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
  return (await ask(path, options)).json();
}

/** PUT JSON, as JSON. */
export async function put(path, body, signal) {
  const options = { method: "PUT", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
  return (await ask(path, options)).json();
}

/** DELETE, as JSON. */
export async function remove(path, signal) {
  return (await ask(path, { method: "DELETE", signal })).json();
}

/** An answer as a file's bytes, in the form that `accept` names. */
export async function bytesOf(path, body, accept, signal) {
  const more = { "Content-Type": "application/json", Accept: accept };
  return (await ask(path, { method: "POST", body: JSON.stringify(body), headers: more, signal })).blob();
}

/** An answer of server-sent events: calls `onevent(data, kind, id)` for each until it ends; `data` is null where only the id goes on. */
export async function stream(path, body, onevent, signal, again = true) {
  const sends = body !== null;
  const answer = await fetch(path, {
    method: sends ? "POST" : "GET",
    credentials: "omit",
    body: sends ? JSON.stringify(body) : undefined,
    headers: headers({ Accept: "text/event-stream", ...(sends ? { "Content-Type": "application/json" } : {}) }),
    signal,
  });
  if (answer.status === 401 && again && (await askForKey())) return stream(path, body, onevent, signal, false);
  if (!answer.ok) throw new ApiError(answer.status, await words(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) emit(part, onevent);
  }
}

function emit(part, onevent) {
  let kind = "message";
  let id = null;
  const data = [];
  for (const line of part.split("\n")) {
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    else if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("id:")) id = line.slice(3).trim();
  }
  if (data.length || id !== null) onevent(data.length ? JSON.parse(data.join("\n")) : null, kind, id);
}

/** A question of any kind of the query service. */
export const query = (kind, body, signal) => post(`/v1/query/${kind}`, body, signal);
export const trends = (body, signal) => query("trends", body, signal);
export const sql = (query, signal, parameters = {}) => post("/v1/query/sql", { query, parameters }, signal);

/** The rows of an answer as objects. */
export function records({ columns, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
}

let asking = null;

/** Ask for a key; true when one was given. Requests that meet a 401 together share the question. */
function askForKey() {
  asking ||= new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", required: true });
    const dialog = h("dialog", { "aria-labelledby": "key-title" },
      h("form.form", { method: "dialog" },
        h("h2", { id: "key-title" }, "This server wants a key"),
        h("p.note", "One of its configured keys. It is kept until this tab is closed."),
        field("Key", input),
        h("div.row", h("button.main", { value: "ok" }, "Use key"), h("button", { value: "", formnovalidate: true }, "Cancel"))));
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" && input.value !== "";
      if (given) sessionStorage.setItem(KEY, input.value);
      dialog.remove();
      asking = null;
      resolve(given);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
