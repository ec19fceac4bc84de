// Small pictures: a sparkline, and amounts as bars in a list.

import { h, s } from "../dom.js";
import { label as named, number, share } from "../format.js";

/** A sparkline; what it says must stand beside it in numbers. */
export function spark(values, colour = 0) {
  const high = Math.max(...values, 1);
  const points = values.map((value, i) => `${((i / Math.max(values.length - 1, 1)) * 110).toFixed(1)},${(24 - (value / high) * 21).toFixed(1)}`);
  if (points.length < 2) return s("svg.spark", { viewBox: "0 0 110 26", "aria-hidden": "true" });
  return s("svg.spark", { viewBox: "0 0 110 26", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: `area s${colour}`, d: `M${points.join("L")}L110,26L0,26Z` }), s("path", { class: `s${colour}`, d: `M${points.join("L")}` }));
}

/** Amounts, largest first, with their share of the whole: `[[name, amount], …]`. `link(name)` makes a name lead somewhere. */
export function meters(rows, { whole = rows.reduce((sum, [, amount]) => sum + amount, 0), colour = 0, format = number, link, percent = true } = {}) {
  const most = Math.max(...rows.map(([, amount]) => amount), 1);
  return h("ul.meters", rows.map(([name, amount]) => {
    const bar = h(`i.s${colour}`);
    bar.style.width = `${(amount / most) * 100}%`;
    const text = named(name);
    return h("li", h("span.name", { title: text }, link ? h("a", { href: link(name) }, text) : text),
      h("span.amount", format(amount), percent && h("small", ` ${share(amount, whole)}`)), h("span.track", bar));
  }));
}
