// Making elements. Text only ever becomes text nodes: what an event says can never become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: `h("a.link", {href}, "text", child, …)`. A key `on…` is a listener; null, false and undefined children are left out. */
export function h(tag, ...rest) {
  return make((name) => document.createElement(name), tag, rest);
}

/** An SVG element, likewise. */
export function s(tag, ...rest) {
  return make((name) => document.createElementNS(SVG, name), tag, rest);
}

function make(create, tag, rest) {
  const [name, ...classes] = tag.split(".");
  const element = create(name || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  const isAttributes = rest.length && rest[0] !== null && typeof rest[0] === "object" && !(rest[0] instanceof Node) && !Array.isArray(rest[0]);
  if (isAttributes) set(element, rest.shift());
  put(element, rest);
  return element;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled") element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
}

function put(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Put these in place of what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  put(element, children);
  return element;
}

/** Tell a screen reader. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

let ids = 0;

/** A labelled control. */
export function field(label, control, hint) {
  control.id ||= `f${(ids += 1)}`;
  return h("label.field", { for: control.id }, label, control, hint && h("span.note", hint));
}

/** A select of `[value, label]` pairs. */
export function choice(options, value, onchange) {
  const select = h("select", { onchange: () => onchange?.(select.value) });
  for (const [key, label] of options) select.append(h("option", { value: key, selected: key === value }, label));
  select.value = value;
  return select;
}

/** Buttons of which one is pressed. */
export function segments(label, options, value, onchange) {
  const buttons = options.map(([key, text]) =>
    h("button", { type: "button", "aria-pressed": String(key === value), onclick: () => press(key) }, text));
  function press(chosen) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === chosen)));
    onchange(chosen);
  }
  return h("div.segments", { role: "group", "aria-label": label }, buttons);
}

/** An input with suggestions: `list` is filled later, or never. */
export function suggested(attributes, values = []) {
  const list = h("datalist", { id: `f${(ids += 1)}` });
  const input = h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes, list: list.id });
  const suggest = (found) => fill(list, found.map((value) => h("option", { value })));
  suggest(values);
  return { input, list, suggest };
}
