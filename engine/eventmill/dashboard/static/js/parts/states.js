// What stands where there is nothing to show: waiting, empty, wrong.

import { fill, h } from "../dom.js";

/** How to get events where there are none. */
export function noEvents() {
  return h("div.state", h("strong", "No events yet"),
    h("p", "Point your Segment or RudderStack SDK at this server, or send it a shop's traffic:"),
    h("pre", `eventmill generate --url ${location.origin}`));
}

/** Nothing in this selection. */
export function empty(title, advice) {
  return h("div.state", h("strong", title), advice && h("p", advice));
}

/** What went wrong, in the API's words. */
export function wrong(error, retry) {
  return h("div.state.error", { role: "alert" }, h("strong", error.status ? "The server refused" : "No answer"),
    h("p", error.message), retry && h("button.small", { type: "button", onclick: retry }, "Try again"));
}

/**
 * Put what `load(signal)` gives into `slot`: a bar while waiting (what stood there stays), the error if it fails. A later call
 * for the same slot ends the earlier one.
 */
export async function show(slot, load, page) {
  slot.running?.abort();
  const mine = (slot.running = new AbortController());
  const signal = page ? AbortSignal.any([mine.signal, page]) : mine.signal;
  const bar = h("div.wait", { role: "progressbar", "aria-label": "Loading" });
  const late = setTimeout(() => slot.prepend(bar), slot.childElementCount ? 250 : 0);
  slot.setAttribute("aria-busy", "true");
  try {
    const content = await load(signal);
    if (!signal.aborted) fill(slot, content);
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === undefined) console.error(error);
    fill(slot, wrong(error, () => show(slot, load, page)));
  } finally {
    clearTimeout(late);
    bar.remove();
    if (slot.running === mine) slot.removeAttribute("aria-busy");
  }
}

/** Call `tick` now and every `ms` while the page is open and visible. */
export function repeat(tick, ms, signal) {
  let timer = null;
  async function run() {
    clearTimeout(timer);
    if (signal.aborted) return;
    if (!document.hidden) await tick();
    if (!signal.aborted) timer = setTimeout(run, ms);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); }, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  return run();
}
