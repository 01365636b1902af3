"""What the reader costs: in a real chromium the tokens of 16 x 1,024, a key, a live page beside an empty one; on the
server the first page, filters and text search of a run with a million samples.

    python benchmarks/reader.py [--json] [--samples 1000000] [--run FOLDER]

Browser figures are seconds of the page's main thread (chromium's own account), so that a busy machine does not
change them; a key is timed from the press to the frame that shows its effect. Kept in benchmarks/results/reader.json.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import gradio as gr
import numpy as np
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import CDPSession, Page, sync_playwright
from reader_refresh import build

from tests.fakes import END, fake_config, make_step, token_text, write_fake_run
from workbench.core.types import Group, Rollout, StepRecord
from workbench.launch import identity
from workbench.record.folder import RunFolder, create
from workbench.record.provenance import versions
from workbench.record.writer import Writer
from workbench.view.common.glossary import glossary
from workbench.view.common.routing import PlainJSON
from workbench.view.common.run_header import run_header
from workbench.view.common.run_store import RunStore
from workbench.view.live.delta import read_delta
from workbench.view.live.step_groups import step_groups
from workbench.view.search import query as search
from workbench.view.server import app, serve

RESULT = Path(__file__).parent / "results" / "reader.json"
LIVE_SECONDS = 20
KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "t", "j", "k", "j", "d", "d", "h", "l", "k", "9", "f", "f"]
TARGETS = {
    "tokens_16x1024_cpu_ms": 300, "key_median_ms": 60, "live_to_empty": 2, "first_page_ms": 300, "filter_worst_ms": 1000,
    "text_search_worst_ms": 300,
}  # fmt: skip
FILTERS = {
    "reward and length": {"reward_min": 1, "length_min": 40}, "a reward nobody earned": {"reward_min": 5},
    "cut off": {"finish": "length"}, "pushed down": {"advantage": "down"}, "a style nobody has": {"style": "zebra"},
    "rewards disagree": {"disagree": "correct|format"}, "a reward that failed": {"failed": "correct"},
    "marker words": {"words": "wait check"}, "old steps": {"step_min": 3, "step_max": 5}, "longest": {"sort": "longest"},
    "longest of the right": {"sort": "longest", "right": True}, "most pushed": {"sort": "share"},
    "longest where rewards disagree": {"sort": "longest", "disagree": "correct|format"},
}  # fmt: skip
TEXTS = {
    "common word": {"text": "answer"}, "rare sum": {"text": "9*9+9*9"}, "nothing": {"text": "zebra"}, "a sign": {"text": "+"},
    "common word, longest": {"text": "answer", "sort": "longest"}, "phrase": {"text": "check\n7*8"},
}  # fmt: skip


# -- what is looked at -------------------------------------------------------------------------------------


def long_run(root: Path) -> RunFolder:
    """Two steps of two groups of 16 answers of 1,024 tokens that part at different places."""
    config = fake_config(groups=2, samples=16, steps=2, run_name="long", max_completion_length=1024)
    folder = create(root, config)
    with Writer(folder, config, token_text=token_text) as writer:
        for step in range(2):
            writer.step(lengthened(make_step(step, groups=2, samples=16, config=config), 1024))
    folder.write_status({"state": "finished", "step": 2, "steps": 2})
    return folder


def lengthened(record: StepRecord, length: int) -> StepRecord:
    """The step with answers of that many tokens; sibling i shares what sibling 0 says up to its own place."""
    noise = np.random.default_rng(record.step)
    groups, ids = [], []
    for group in record.groups:
        trunk = noise.integers(3, 100, length).astype(np.int32)
        rollouts = []
        for i in range(len(group)):
            mine = np.where(np.arange(length) < 40 * (i + 1), trunk, noise.integers(3, 100, length)).astype(
                np.int32
            )
            mine[-1] = END
            text = b"".join(token_text(int(token)) for token in mine[:-1]).decode()
            logps = -noise.exponential(0.3, length).astype(np.float32)
            rollouts.append(Rollout(mine, logps, text, "stop", "fake", 0, i))
            ids.append(mine)
        groups.append(Group(group.prompt, tuple(rollouts)))
    assert record.tokens is not None
    some = [-noise.exponential(0.3, length).astype(np.float32) for _ in ids]
    tokens = dataclasses.replace(
        record.tokens, token_ids=ids, sampler_logp=[rollout.logprobs for group in groups for rollout in group.rollouts],
        policy_logp=some, reference_logp=some, after_logp=some, entropy=[-one for one in some], weight=some,
    )  # fmt: skip
    return dataclasses.replace(record, groups=groups, tokens=tokens)


@contextlib.contextmanager
def going_on(root: Path) -> Iterator[RunFolder]:
    """A run that records a step every two seconds, in a thread of this process."""
    config = fake_config(groups=16, samples=12, steps=500, run_name="going-on")
    folder = create(root, config)
    who, over = identity.current("bench"), threading.Event()

    def tell(step: int) -> None:
        now = time.time()
        folder.write_status({
            "state": "running", "phase": "sample", "phase_done": 60, "phase_total": 192, "step": step, "steps": 500, "pid": who.pid,
            "create_time": who.create_time, "boot_id": who.boot_id, "token": who.token, "heartbeat": now, "progress_at": now,
            "started": now - 60, "ended": None, "reason": "", "eta": 60.0, "step_seconds": 2.0,
        })  # fmt: skip

    def work() -> None:
        with Writer(folder, config, token_text=token_text) as writer:
            for step in range(500):
                writer.step(make_step(step, steps=500, config=config))
                for _ in range(1 if step < 60 else 2):
                    tell(step + 1)
                    if step >= 60 and over.wait(1.0):
                        return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        over.set()
        thread.join(10)


# -- the server's side -------------------------------------------------------------------------------------


def asked(question: Callable[[], Any], rounds: int = 7) -> dict[str, float]:
    """Wall and CPU milliseconds of an answer as JSON, medians."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        PlainJSON(question())  # written as the routes write it
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return {"wall_ms": round(statistics.median(walls), 1), "cpu_ms": round(statistics.median(cpus), 1)}


def large(folder: RunFolder) -> dict[str, Any]:
    """What a page asks of a run with very many samples."""
    root, run = folder.root, folder.id

    def first_page() -> list[Any]:
        """All that is asked before the Live view stands."""
        store = RunStore(root)
        reader = store.reader(run)
        found = [run_header(reader), glossary(), read_delta(store, run, None)]
        return [*found, step_groups(reader, found[2]["steps"][-1])]

    gc.collect()
    gc.freeze()  # as the server does when it starts
    reader = RunStore(root).reader(run)

    def hits(query: dict[str, Any]) -> Callable[[], Any]:
        return lambda: search.find(reader, search.PageQuery(**query))

    return {
        "first_page": asked(first_page),
        "filters": {name: asked(hits(query), 5) for name, query in FILTERS.items()},
        "texts": {name: asked(hits(query), 5) for name, query in TEXTS.items()},
    }


# -- the browser's side ------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(asgi: Any) -> Iterator[str]:
    """The address of an application."""
    listener = serve.listen("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(asgi, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    thread.join(5)


def busy(session: CDPSession) -> float:
    """Milliseconds that the page's main thread has worked so far."""
    found = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(float(one["value"]) for one in found if one["name"] == "TaskDuration")


def watched(page: Page) -> CDPSession:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return session


def tokens(page: Page, address: str, run: RunFolder) -> dict[str, float]:
    """The Group view opened on 16 x 1,024 tokens, its tree, and then all sixteen answers token by token."""
    page.goto(f"{address}/?run={run.id}&step=1")
    page.wait_for_selector(".groups table tbody tr")
    page.wait_for_timeout(1500)
    session = watched(page)
    found = {}
    steps = {
        "group_view_cpu_ms": (lambda: page.keyboard.press("Enter"), ".card [data-tok='300']"),
        "tree_cpu_ms": (lambda: page.keyboard.press("f"), ".tree .branch"),
        "all_16_cards_cpu_ms": (
            lambda: page.evaluate("document.querySelector('.bar [data-key^=\"bar-All\"]').click()"), ".cards.nall .card:nth-child(16)"
        ),
    }  # fmt: skip
    for name, (act, drawn) in steps.items():
        before = busy(session)
        act()
        page.wait_for_selector(drawn, state="attached")
        page.wait_for_timeout(1200)
        found[name] = round(busy(session) - before, 1)
        if name.startswith("tree"):
            page.keyboard.press("f")
            page.wait_for_timeout(300)
    found["token_spans"] = page.locator(".card [data-tok]").count()
    return found


TIMER = """() => {
  window.__times = [];
  let pressed = 0;
  addEventListener("keydown", () => (pressed = performance.now()), true);
  new MutationObserver(() => {
    if (!pressed) return;
    const at = pressed;
    pressed = 0;
    requestAnimationFrame(() => requestAnimationFrame(() => window.__times.push(performance.now() - at)));
  }).observe(document.getElementById("wb-reader"), { childList: true, subtree: true, attributes: true });
}"""


def keys(page: Page, address: str, run: RunFolder) -> dict[str, float]:
    """From the press of a key to the frame that shows what it did, in a group of 12 answers."""
    page.goto(f"{address}/?run={run.id}&view=group&step=12")
    page.wait_for_selector(".card [data-tok]")
    page.wait_for_timeout(1500)
    session = watched(page)
    page.evaluate(TIMER)
    before, pressed = busy(session), 0
    for key in KEYS * 2:
        page.keyboard.press(key)
        pressed += 1
        page.wait_for_timeout(250)
    times = page.evaluate("window.__times")
    return {
        "median_ms": round(statistics.median(times), 1), "p90_ms": round(sorted(times)[int(0.9 * len(times))], 1), "keys": len(times),
        "cpu_ms_a_key": round((busy(session) - before) / pressed, 1),
    }  # fmt: skip


def standing(page: Page, url: str, ready: str) -> float:
    """Milliseconds of the main thread a second, while nobody touches the page."""
    page.goto(url)
    page.wait_for_selector(ready, state="attached")
    page.wait_for_timeout(4000)
    session = watched(page)
    before, began = busy(session), time.monotonic()
    page.wait_for_timeout(1000 * LIVE_SECONDS)
    return (busy(session) - before) / (time.monotonic() - began)


def empty_page() -> FastAPI:
    """A Gradio page with nothing on it: the floor of what a page costs."""
    with gr.Blocks(title="empty", analytics_enabled=False) as blocks:
        gr.HTML("<p id='empty'>nothing</p>")
    return gr.mount_gradio_app(
        FastAPI(),
        blocks,
        path="/",
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
    )


def browser(root: Path, usual: RunFolder, long: RunFolder) -> dict[str, Any]:
    """Everything that needs a browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with (
        sync_playwright() as playwright,
        served(app.build(root, token=None)) as address,
        served(empty_page()) as empty,
    ):
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_context(
            viewport={"width": 1440, "height": 900}, reduced_motion="reduce"
        ).new_page()
        page.set_default_timeout(120_000)
        found: dict[str, Any] = {"tokens": tokens(page, address, long), "keys": keys(page, address, usual)}
        floor = [standing(page, empty, "#empty")]
        with going_on(root) as run:
            while not (run.db_path.exists() and (RunStore(root).reader(run.id).last_step() or 0) >= 60):
                time.sleep(0.2)
            live = [standing(page, f"{address}/?run={run.id}", ".groups table tbody tr") for _ in range(2)]
        floor.append(standing(page, empty, "#empty"))
        found["live"] = {
            "live_ms_a_second": round(statistics.mean(live), 1), "empty_ms_a_second": round(statistics.mean(floor), 1),
            "ratio": round(statistics.mean(live) / statistics.mean(floor), 2),
        }  # fmt: skip
        found["chromium"] = chromium.version
        chromium.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--run", type=Path, help="a run with very many samples that is there already")
    parser.add_argument("--json", action="store_true", help="print all figures as one JSON line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        many = RunFolder(options.run) if options.run else build(str(root / "many"), options.samples)[0]
        server_side = large(many)
        shown = root / "shown"
        shown.mkdir()
        usual, long = write_fake_run(shown, steps=31, seed=2, name="usual"), long_run(shown)
        browser_side = browser(shown, usual, long)
    figures = {
        "tokens_16x1024_cpu_ms": browser_side["tokens"]["all_16_cards_cpu_ms"],
        "key_median_ms": browser_side["keys"]["median_ms"],
        "live_to_empty": browser_side["live"]["ratio"],
        "first_page_ms": server_side["first_page"]["cpu_ms"],
        "filter_worst_ms": max(one["cpu_ms"] for one in server_side["filters"].values()),
        "text_search_worst_ms": max(one["cpu_ms"] for one in server_side["texts"].values()),
    }
    found = {
        "figures": figures, "targets": TARGETS, "met": {name: figures[name] <= most for name, most in TARGETS.items()},
        "browser": browser_side, "server": server_side, "samples": options.samples, "versions": versions(),
        "cpus": os.cpu_count(), "machine": platform.machine(), "load": [round(value, 1) for value in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    if options.json:
        print(json.dumps(found))
        return
    for name, value in figures.items():
        print(f"{name:24s} {value:9.1f}   target {TARGETS[name]}")


if __name__ == "__main__":
    main()
