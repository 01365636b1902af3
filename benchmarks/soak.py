"""A long run with two live dashboards and a reader that never rests: does anything grow that should not?

`python benchmarks/soak.py [--steps 500]`. Memory, file handles and CPU seconds a step of the worker and of both dashboards are taken all
along; the bounds below are checked, and figures go to results/soak.json with hardware, versions, load. Step time is CPU time: it does not
depend on what else the machine does.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import sync_playwright
from surroundings import surroundings

from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import preflight
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.search import Filters

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"
SETTINGS = {
    "prompts_per_step": 3, "num_generations": 4, "max_completion_length": 32, "eval_steps": 100, "eval_problems": 8, "save_steps": 50,
    "device": "cpu", "threads": 1, "wandb": "off", "seed": 1,
}  # fmt: skip
WARM = 0.2
"""Share of the run that is not looked at: libraries load, caches fill."""
BOUNDS = {
    "worker_memory_growth_mib": 64.0,
    "worker_handles_growth": 4,
    "worker_cpu_per_step_ratio": 1.25,
    "dashboard_memory_growth_mib": 64.0,
    "dashboard_handles_growth": 8,
    "reader_seconds_ratio": 3.0,
    "log_beside_database_mib": 16.0,
}
"""Most that may be added between the end of the warm-up and the end, or the ratio of the last fifth to the first one after it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    around = surroundings()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        config = RunConfig.build("embedded", {**SETTINGS, "steps": options.steps})
        folder = preflight.start(config, place)
        stack.callback(launch.stop, folder, 0, kill_after=5)
        dashboards = [stack.enter_context(_Dashboard(place)) for _ in range(2)]
        pages = _open_pages(stack, [dashboard.address for dashboard in dashboards], folder)
        reading = _Reading(folder)
        stack.callback(reading.stop)
        taken: list[dict[str, Any]] = []
        while not launch.state(folder).over:
            taken.append(_take(folder, [psutil.Process(dashboard.pid) for dashboard in dashboards]))
            pages.wait(2.0)
        state = launch.state(folder)
        assert state.state == "finished", (state.reason, state.log)
        reading.stop()
        seen = pages.steps()
        found = _judge([one for one in taken if one], reading.seconds, options.steps)
    result = {
        **around,
        "settings": SETTINGS,
        "steps": options.steps,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "browser_pages": seen,
        "reads": len(reading.seconds),
        "found": found,
        "bounds": BOUNDS,
        "broken": [name for name, value in found.items() if value > BOUNDS[name]],
        "samples": taken[:: max(1, len(taken) // 40)],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps(
            {
                name: result[name]
                for name in ("steps", "minutes", "reads", "browser_pages", "found", "broken")
            },
            indent=1,
        )
    )
    return 1 if result["broken"] else 0


class _Dashboard:
    """An app process over the runs, and the address it printed."""

    def __init__(self, root: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench.view", "--runs", root, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = next(line for line in self.process.stdout if "http://" in line).split()[-1]
        self.pid = self.process.pid

    def __enter__(self) -> "_Dashboard":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.wait(20)


class _Pages:
    """A Live page of each dashboard, open in a real browser all along."""

    def __init__(self, pages: list[Any]) -> None:
        self._pages = pages

    def wait(self, seconds: float) -> None:
        for page in self._pages:  # lets the browser work
            page.wait_for_timeout(1000 * seconds / len(self._pages))

    def steps(self) -> list[str]:
        """What each page says at last."""
        for page in self._pages:
            page.wait_for_timeout(3000)
        return [" ".join(page.locator("#wb-reader").inner_text().split())[:80] for page in self._pages]


def _open_pages(stack: ExitStack, addresses: list[str], folder: RunFolder) -> _Pages:
    playwright = stack.enter_context(sync_playwright())
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    stack.callback(browser.close)
    pages = []
    for address in addresses:
        page = browser.new_context().new_page()
        page.goto(f"{address}&run={folder.id}")
        page.locator("#wb-reader[data-view]").wait_for(timeout=180_000)
        pages.append(page)
    return _Pages(pages)


class _Reading:
    """A second reader of the record that asks everything again and again."""

    def __init__(self, folder: RunFolder) -> None:
        self.seconds: list[float] = []
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        reader, cursor = Reader(self._folder), 0
        while not self._stop.is_set():
            began = time.thread_time()
            found = reader.series(cursor)
            cursor = found["cursor"]
            if (last := reader.last_step()) is not None:
                reader.groups(last)
                reader.group(last, 0, arrays=True)
                reader.search("answer", Filters(reward_min=0.5), limit=50)
            reader.events(limit=100)
            self.seconds.append(time.thread_time() - began)
            self._stop.wait(0.5)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


def _take(folder: RunFolder, dashboards: list[psutil.Process]) -> dict[str, Any]:
    """Memory, handles and CPU seconds now; {} while the worker comes up or goes."""
    try:
        worker = psutil.Process(int(folder.status()["pid"]))
        log = folder.db_path.with_name("run.db-wal")
        return {
            "step": int(folder.status()["step"]),
            "worker_mib": worker.memory_info().rss / 2**20,
            "worker_handles": worker.num_fds(),
            "worker_cpu": sum(worker.cpu_times()[:2]),
            "dashboards_mib": [dashboard.memory_info().rss / 2**20 for dashboard in dashboards],
            "dashboard_handles": [dashboard.num_fds() for dashboard in dashboards],
            "log_mib": log.stat().st_size / 2**20 if log.exists() else 0.0,
        }
    except (psutil.Error, KeyError, TypeError, OSError):
        return {}


def _judge(taken: list[dict[str, Any]], reads: list[float], steps: int) -> dict[str, float]:
    warm = [one for one in taken if one["step"] >= WARM * steps]
    fifth = max(2, len(warm) // 5)
    first, last = warm[:fifth], warm[-fifth:]

    def growth(name: str, place: int | None = None) -> float:
        values = [
            [one[name] if place is None else one[name][place] for one in part] for part in (first, last)
        ]
        return statistics.median(values[1]) - statistics.median(values[0])

    def per_step(part: list[dict[str, Any]]) -> float:
        return (part[-1]["worker_cpu"] - part[0]["worker_cpu"]) / max(1, part[-1]["step"] - part[0]["step"])

    later = reads[int(WARM * len(reads)) :]
    fifth = max(2, len(later) // 5)
    found = {
        "worker_memory_growth_mib": growth("worker_mib"),
        "worker_handles_growth": growth("worker_handles"),
        "worker_cpu_per_step_ratio": per_step(last) / per_step(first),
        "dashboard_memory_growth_mib": max(growth("dashboards_mib", place) for place in range(2)),
        "dashboard_handles_growth": max(growth("dashboard_handles", place) for place in range(2)),
        "reader_seconds_ratio": statistics.median(later[-fifth:]) / statistics.median(later[:fifth]),
        "log_beside_database_mib": max(one["log_mib"] for one in warm),
    }
    return {name: round(float(value), 3) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
