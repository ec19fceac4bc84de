// The frame: pages by the address's hash, theme, and whether the server answers.

import { get } from "./api.js";
import { fill, h, s, say } from "./dom.js";
import { ZONE, compact } from "./format.js";
import { repeat } from "./parts/states.js";
import { PAGES } from "./pages.js";

const BEAT_MS = 5_000;
const main = document.getElementById("main");
let open = null;

/** The page of `#/name?key=value`, and its parameters. */
function address() {
  const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { name: name || "overview", params: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

/** Keep parameters in the address without opening the page again; null removes one. */
function keep(changes) {
  const { name, params } = address();
  const merged = Object.entries({ ...params, ...changes }).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(merged).toString();
  history.replaceState(null, "", `#/${name}${query ? `?${query}` : ""}`);
  return address().params;
}

async function route() {
  open?.abort();
  const mine = (open = new AbortController());
  const { name, params } = address();
  const page = PAGES.find((each) => each.name === name) ?? PAGES[0];
  navigation(page);
  document.title = `${page.title} · Eventmill`;
  document.querySelector(".side").classList.remove("open");
  document.getElementById("menu").setAttribute("aria-expanded", "false");
  const { render } = await page.load();
  if (mine.signal.aborted) return;
  const root = h("div");
  fill(main, root);
  render(root, { params, keep, signal: mine.signal });
  say(`${page.title} page`);
}

function navigation(current) {
  const groups = [...new Set(PAGES.map(({ group }) => group))];
  fill(document.getElementById("nav"), groups.map((group) => [
    h("p.group", group),
    h("ul", PAGES.filter((page) => page.group === group).map((page) => h("li", h("a", { href: `#/${page.name}`, "aria-current": page === current ? "page" : null },
      s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, s("path", { d: page.icon })), page.title)))),
  ]));
}

function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  function apply() {
    const chosen = localStorage.getItem("eventmill.theme");
    const dark = chosen ? chosen === "dark" : system.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    fill(button, dark ? "Light theme" : "Dark theme");
  }
  button.addEventListener("click", () => {
    localStorage.setItem("eventmill.theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

function beat() {
  const place = document.getElementById("beat");
  repeat(async () => {
    let [state, text] = ["ok", "Connected"];
    try {
      const { in_flight: waiting } = await get("/v1/status");
      if (waiting) text = `Connected, ${compact(waiting)} in flight`;
    } catch (error) {
      // A project's key is not told of the whole server: that it was refused shows that the server answers.
      if (error.status !== 403) [state, text] = ["bad", error.status ? error.message : "The server does not answer"];
    }
    place.dataset.state = state;
    if (place.textContent !== text) fill(place, text);
  }, BEAT_MS, new AbortController().signal);
}

document.getElementById("menu").addEventListener("click", ({ currentTarget }) => {
  const isOpen = document.querySelector(".side").classList.toggle("open");
  currentTarget.setAttribute("aria-expanded", String(isOpen));
});
fill(document.getElementById("zone"), `Times in ${ZONE}`);
theme();
window.addEventListener("hashchange", () => { route(); main.focus(); });
route();
beat();
