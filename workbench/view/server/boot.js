// Loaded first on every page: sets the theme, then mounts the page's modules. Gradio creates its elements late, so this waits for them.

import { routes } from "../common/fetch.js";

const readOnly = document.querySelector('meta[name="wb-read-only"]') !== null;
const { fetchJson, postJson: post } = routes("/wb/api/");
const postJson = readOnly ? null : post;
const query = new URLSearchParams(location.search);
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const wanted = query.get("__theme");
  const name = wanted === "dark" || wanted === "light" ? wanted : dark.matches ? "dark" : "light";
  document.documentElement.dataset.theme = name;
  document.documentElement.classList.add("wb");
  document.documentElement.classList.toggle("wb-read-only", readOnly);
  document.body?.classList.toggle("dark", name === "dark");
}

const navigate = (url) => location.assign(url);

/** Calls `found` with the element once it exists. */
function whenThere(selector, found) {
  const look = () => {
    const element = document.querySelector(selector);
    if (element) found(element);
    return element;
  };
  if (look()) return;
  const observer = new MutationObserver(() => look() && observer.disconnect());
  observer.observe(document.documentElement, { childList: true, subtree: true });
}

// The phone menu closes after a choice, and when the page is tapped elsewhere.
document.addEventListener("click", ({ target }) => {
  const menu = document.querySelector(".wb-menu[open]");
  if (menu && !target.closest(".wb-menu summary")) menu.open = false;
});

theme();
dark.addEventListener("change", theme);
document.addEventListener("DOMContentLoaded", theme);
whenThere("[data-module]", async (element) => {
  const [, module] = element.dataset.module.match(/^([a-z_]+\/[a-z_]+)$/);
  (await import(`../${module}.js`)).mount(element, { fetchJson, postJson, navigate });
});
