// The reader: one run in one element, with the views Live, Group, Prompt, Search and Try it. It takes JSON through one fetchJson(path) and
// knows nothing of the page around it. `mount(element, {fetchJson, postJson, navigate})` serves the dashboard; a notebook cell or an
// exported page gives embedded responses (fetch.js, `embedded`), a cursor to start from, and no postJson.

import { makeProbeClient } from "../ask/probe_client.js";
import { makeLiveSettings } from "../live/live_settings.js";
import { forkLink } from "../common/fork_link.js";
import { format, makeCursor, parse } from "../common/cursor.js";
import { h, show } from "../common/dom.js";
import { tooltipText } from "./tooltip_text.js";
import { makeGroup } from "../group/group.js";
import { makeHits } from "../search/hits.js";
import { listen } from "../common/keys.js";
import { makeLive, ribbonState } from "../live/live.js";
import { makePendingRatings } from "../live/pending_ratings.js";
import { interval, poll } from "../common/poller.js";
import { makePrompt } from "../prompt/prompt.js";
import { makeRibbon } from "../live/ribbon.js";
import { makeHitBar, makeSearch } from "../search/search.js";
import { makeRater } from "../common/ratings.js";
import { makeCommands } from "./commands.js";
import { makeHelp, makeKeyBar } from "./keyboard_help.js";
import { makeBottomBar, makeLostBar, makeStrip } from "./run_strip.js";
import { makeStore } from "./store.js";
import { hasSearch } from "../common/search_query.js";
import { makeTry } from "../ask/try_it.js";
import { makeTips } from "../common/tooltip.js";
import { makeWhatIfDrawer } from "../whatif/drawer.js";

const NO_GLOSSARY = { metrics: {}, settings: {} };
const REDUCED_MOTION = matchMedia("(prefers-reduced-motion: reduce)");
const isNarrow = () => matchMedia("(max-width: 600px)").matches;

/**
 * Draw a run into `element`. `start` is a cursor to begin with ({run, step, ...}); without it the page's address is the
 * cursor. `live` false loads once and does not poll. Resolves to {update, stop} once the run's header is there.
 */
export async function mount(element, { fetchJson, postJson = null, navigate = null, start = null, live = true }) {
  element.classList.add("wb", "wb-reader");
  const cursor = makeCursor(start ?? parse(location.search), { inUrl: !start });
  const say = (...words) => show(element, h("p", { class: "missing", role: "status" }, words));
  const notice = setTimeout(say, 400, "Opening the run…");
  try {
    const run = cursor.now.run ?? (await fetchJson("runs")).runs[0]?.id;
    if (!run) return say("No runs yet. ", navigate && postJson && h("a", { class: "link", href: "/new" }, "Start one"));
    const store = makeStore({ fetchJson, postJson }, run);
    const [header, glossary] = await Promise.all([store.header(), store.glossary().catch(() => NO_GLOSSARY)]);
    clearTimeout(notice);
    return assemble(element, { cursor, store, hits: makeHits({ fetchJson }, run), ask: makeProbeClient({ fetchJson, postJson }, run), header, glossary, postJson, navigate, live });
  } catch (error) {
    if (!error.status && error.name !== "TypeError") throw error;
    return say(error.status ? error.message : "Not connected. Reload the page to try again.");
  } finally {
    clearTimeout(notice);
  }
}

function assemble(element, { cursor, store, hits, ask, header, glossary, postJson, navigate, live }) {
  const { held = null, excerpt = null } = header; // an exported page may hold some steps only: the cursor stays among them
  const go = (change) => cursor.move(held && Number.isInteger(change.step) ? { ...change, step: nearest(held, change.step) } : change);
  const link = (change) => format({ ...cursor.now, tok: null, ...change }, location.search);
  const newest = () => store.newest;
  const stepNow = () => cursor.now.step ?? newest();
  const commands = makeCommands({ postJson, run: store.run, onChange: () => draw(), onSent: () => poller.now() });

  const miniRibbon = makeRibbon({ mini: true, onPick: (step) => go({ step, prompt: cursor.now.view === "group" ? null : cursor.now.prompt }) });
  const lost = makeLostBar();
  const liveSettings = makeLiveSettings({ header, store, commands });
  const strip = makeStrip({ commands, liveSettings, fork: (step) => forkLink(store.run, step), ribbon: miniRibbon, onLive: () => go({ step: null }) });
  const whatIf = makeWhatIfDrawer({ store, header, glossary, go, onResult: () => draw(), canRun: Boolean(navigate && postJson) });
  const toggleWhatIf = navigate ? () => go({ whatif: cursor.now.whatif === null ? "" : null }) : null; // needs a server
  const rater = makeRater({ postJson, run: store.run, onChange: () => (cursor.now.view === "live" ? pendingRatings.paint() : groupView.repaint()), say: (words) => keyBar.say(words) });
  const pendingRatings = makePendingRatings({ store, rater, goOn: () => commands.post("waiting/go-on", {}, "Continues with the ratings so far.") });
  const liveView = makeLive({ store, header, go, link, commands, pendingRatings, whatIf, toggleWhatIf });
  const scalings = (glossary.variants?.scalings ?? []).filter(({ settings }) => "scale_rewards" in settings); // what total rewards alone can show
  const groupView = makeGroup({ store, header, scalings, rater, go, turn, walk, whatIf, toggleWhatIf, ask });
  const promptView = makePrompt({ store, header, go, link });
  const searchView = makeSearch({ store, hits, header, go, link });
  const tryView = makeTry({ store, header, ask });
  const hitBar = makeHitBar({ hits, go });
  const views = { live: liveView, group: groupView, prompt: promptView, search: searchView, try: tryView };
  const idle = [...(toggleWhatIf ? [] : ["w"]), ...(ask ? [] : ["a", "b"]), ...(rater.can ? [] : ["g", "r"])];
  const keyBar = makeKeyBar(idle);
  const help = makeHelp(header.search, idle);
  const bottom = makeBottomBar({ commands, liveSettings, fork: (step) => forkLink(store.run, step), onAlarms: liveView.showAlarms, onStep: turn, onAll: groupView.toggleAll });
  show(element, lost.element, excerpt && h("p", { class: "excerpt", role: "note" }, excerpt), strip.element, hitBar.element, liveView.element, groupView.element, promptView.element, searchView.element, tryView.element, keyBar.element, bottom.element, bottom.sheet, help.element, liveSettings.element);
  const tips = makeTips(element, (anchor) => tooltipText(anchor, { glossary, store, header, step: stepNow(), group: groupView.shown, lens: cursor.now.lens }));

  /** The view that rating keys act on: the group on screen, or on Live the samples that wait for ratings. */
  const rating = () => (cursor.now.view === "group" ? groupView : cursor.now.view === "live" && pendingRatings.active ? pendingRatings : null);

  /** To another step; past the newest is live again. */
  function turn(by) {
    const at = stepNow();
    if (at === null || ["search", "try"].includes(cursor.now.view)) return;
    if (cursor.now.view === "prompt") {
      const step = promptView.visit(by);
      return step === null ? null : go({ step });
    }
    if (cursor.now.mode) {
      const steps = store.data.evaluations.filter((one) => one.mode === cursor.now.mode).map((one) => one.step);
      const next = by > 0 ? steps.find((step) => step > at) : steps.findLast((step) => step < at);
      return next === undefined ? null : go({ step: next });
    }
    const to = held ? ((by > 0 ? held.find((step) => step > at) : held.findLast((step) => step < at)) ?? at) : at + by;
    const keep = cursor.now.view === "group" ? { prompt: null } : {};
    if (to < 0) return;
    go({ ...keep, step: to > newest() ? null : to });
  }

  /** To another group of this step, in the order of the Live view. */
  function walk(by) {
    if (cursor.now.view === "search") return searchView.walk(by);
    if (rating() === pendingRatings) return pendingRatings.walk(by);
    if (cursor.now.view === "try") return;
    if (cursor.now.view === "prompt") {
      const next = promptView.neighbour(by);
      return next && go({ step: stepNow(), prompt: next[0], mode: next[1] });
    }
    const list = cursor.now.view === "group" ? (groupView.shown?.list ?? []) : liveView.groups();
    const here = cursor.now.view === "group" ? groupView.shown?.group.prompt_id : cursor.now.prompt;
    const at = list.findIndex((group) => group.prompt_id === here);
    const next = list[Math.max(0, Math.min(list.length - 1, here === null || at < 0 ? (by > 0 && here !== null ? 0 : by > 0 ? 1 : 0) : at + by))];
    if (next) go({ step: stepNow(), prompt: next.prompt_id });
  }

  function openGroup() {
    if (cursor.now.view === "search") return searchView.chosen() && go(searchView.chosen());
    const prompt = cursor.now.prompt ?? (cursor.now.view === "live" ? liveView.groups()[0]?.prompt_id : promptView.shown?.history.prompt_id) ?? null;
    go({ view: "group", step: stepNow(), prompt });
  }

  function openSearch() {
    go({ view: "search", ...searchView.last });
    searchView.focus();
  }

  function openTry() {
    if (groupView.shown && cursor.now.view === "group") tryView.fill(groupView.shown.group.question);
    go({ view: "try" });
    tryView.focus();
  }

  async function copyLink() {
    const url = new URL(format({ ...cursor.now, run: store.run }, location.search), location.href).href;
    try {
      await navigator.clipboard.writeText(url);
      keyBar.say("Link copied.");
    } catch {
      keyBar.say(url);
    }
  }

  function draw() {
    const { view } = cursor.now;
    const state = { store, header, cursor: cursor.now, step: stepNow(), newest: newest(), narrow: isNarrow(), question: groupView.shown?.group.question ?? liveView.groups()[0]?.question };
    element.dataset.view = view;
    for (const [name, one] of Object.entries(views)) one.element.hidden = name !== view;
    strip.update(state);
    if (toggleWhatIf) {
      views[view].slot?.append(whatIf.element);
      whatIf.update(cursor.now, state.step);
    }
    const over = JSON.stringify([store.version, cursor.now.step, state.step, view === "live", store.data.status?.state]);
    if (view !== "live" && store.data.status && over !== overview) miniRibbon.update(ribbonState({ ...state, graded: header.binary === false, narrow: true }));
    overview = over;
    views[view].update(state);
    hitBar.update(cursor.now, view === "group" && hasSearch(cursor.now));
    keyBar.update(rating() === pendingRatings ? "ratings" : view, view === "group" && hasSearch(cursor.now));
    bottom.update({ ...state, groupSize: groupView.shown?.group.n });
    markTopBar(view);
    tips.tidy();
  }

  let overview = "";
  let drawn = "";
  const poller = poll(async () => {
    const delta = await store.refresh();
    // The dot of a running run pulses once per poll: an endless CSS animation would cost more than everything else on the page.
    if (!REDUCED_MOTION.matches) element.classList.toggle("beat");
    // Draw only when something changed, so that hover and focus survive a poll.
    const key = JSON.stringify([delta.steps.length, delta.checks.length, delta.events.length, delta.alarms, store.data.status, store.data.verdict]);
    if (key !== drawn) draw();
    drawn = key;
    return live ? interval(store.data.status.state) : Infinity;
  }, (seconds) => lost.update(seconds));

  cursor.onChange((now, before) => {
    tips.close();
    if (now.view !== before.view || now.prompt !== before.prompt || now.step !== before.step) rater.stop();
    if (now.view !== before.view) scrollTo({ top: 0 });
    draw();
  });
  const stopKeys = listen({
    j: () => walk(1),
    k: () => walk(-1),
    h: () => turn(-1),
    l: () => turn(1),
    p: () => go({ view: "prompt", step: stepNow(), prompt: cursor.now.prompt ?? groupView.shown?.group.prompt_id ?? liveView.groups()[0]?.prompt_id ?? null }),
    t: () => cursor.now.view === "group" && groupView.nextLens(),
    a: () => ask && openTry(),
    b: () => ask && cursor.now.view === "group" && groupView.branch(),
    f: () => cursor.now.view === "group" && groupView.toggleTree(),
    d: () => cursor.now.view === "group" && groupView.toggleCompare(),
    y: copyLink,
    ...(toggleWhatIf ? { w: () => ["live", "group"].includes(cursor.now.view) && toggleWhatIf() } : {}),
    digit: (number) => rating()?.pickNumber(number),
    g: () => rating()?.thumb(true),
    x: () => rating()?.thumb(false),
    r: () => rating() && rater.toggle(),
    Backspace: () => rating()?.undo(),
    Enter: () => cursor.now.view !== "group" && openGroup(),
    Escape: () => (rater.ranking ? rater.toggle() : tips.isOpen ? tips.close() : cursor.now.view === "group" && hasSearch(cursor.now) ? go({ view: "search" }) : cursor.now.view !== "live" && go({ view: "live" })),
    " ": () => go({ step: cursor.now.step === null ? newest() : null }),
    "?": help.open,
    n: () => cursor.now.view === "group" && hasSearch(cursor.now) && hitBar.step(1),
    N: () => cursor.now.view === "group" && hasSearch(cursor.now) && hitBar.step(-1),
    ...(header.search ? { "/": openSearch } : {}),
  });
  element.addEventListener("keydown", (event) => {
    const box = event.target.closest?.("[data-sample-tokens]");
    if (!box || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    const sample = Number(box.dataset.sampleTokens);
    groupView.walkTokens(event.key === "ArrowRight" ? 1 : -1, sample);
    requestAnimationFrame(() => {
      const span = element.querySelector(`[data-card="${sample}"] [data-tok="${cursor.now.tok}"]`);
      if (span) tips.open(span);
    });
  });
  for (const item of document.querySelectorAll("#wb-top [data-page=runs]")) item.href = `/runs?${new URLSearchParams({ run: store.run })}`; // where it is selected for Compare
  const leaveTopBar = takeTopBar({ go, help, search: header.search ? openSearch : null, trial: ask ? openTry : null });
  addEventListener("popstate", () => cursor.move(parse(location.search)));
  matchMedia("(max-width: 600px)").addEventListener("change", draw);

  return {
    update: poller.now,
    stop() {
      poller.stop();
      stopKeys();
      leaveTopBar();
    },
  };
}

const nearest = (steps, wanted) => steps.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[0] ?? wanted);

// The page's top bar, where there is one: its links to Live, Group and Prompt switch views here, its right end offers Try it, Search and Keys.
function takeTopBar({ go, help, search, trial }) {
  const end = document.getElementById("wb-top-end");
  if (end) show(end, trial && h("button", { type: "button", class: "link quiet desk", on: { click: trial } }, "Try it ", h("kbd", {}, "a")), search && h("button", { type: "button", class: "link quiet desk", on: { click: search } }, "Search samples ", h("kbd", {}, "/")), h("button", { type: "button", class: "link quiet desk", on: { click: help.open } }, "Keys ", h("kbd", {}, "?")));
  const onClick = (event) => {
    const item = event.target.closest?.("#wb-top [data-view]");
    if (!item || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    item.closest("details")?.removeAttribute("open");
    if (item.dataset.view === "search" && search) return search();
    go({ view: item.dataset.view });
  };
  document.addEventListener("click", onClick);
  return () => document.removeEventListener("click", onClick);
}

function markTopBar(view) {
  for (const item of document.querySelectorAll("#wb-top [data-view]")) {
    item.classList.toggle("on", item.dataset.view === view);
    if (item.dataset.view === view) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
}
