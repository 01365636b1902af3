"""The main job as a person lives it: start, watch it grow, leave and come back, lose the app, lose the worker."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from tests.helpers import wait_until
from tests.ui.reading import number, record_rows, texts
from workbench import launch
from workbench.record.folder import folders

pytestmark = [pytest.mark.ui, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-this-test-only"


def serve(runs: Path) -> tuple[subprocess.Popen[str], str]:
    """The app as its command starts it, in a session of its own; returns it and its address."""
    app = subprocess.Popen(
        [sys.executable, "app.py", "--runs", str(runs), "--port", "0", "--token", TOKEN],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert app.stdout is not None
    line = next(line for line in app.stdout if "http://" in line)
    return app, line.split()[-1].partition("?")[0]


@pytest.mark.slow
def test_a_run_outlives_page_and_app_and_a_dead_worker_shows_within_ten_seconds(page, tmp_path):
    app, address = serve(tmp_path)
    try:
        page.goto(f"{address}?token={TOKEN}")
        page.wait_for_url(re.compile("/new"), timeout=60_000)  # no runs yet: the form, filled in
        page.locator("#wb-start:has-text('50 steps')").wait_for(timeout=60_000)
        page.locator("#wb-start").click()
        page.wait_for_url(re.compile(r"/\?run=\d{8}-"), timeout=120_000)
        [run] = folders(tmp_path)

        def on_screen() -> int:
            return int(re.match(r"Step (\d+):", page.locator(".groups h2").inner_text()).group(1))

        page.locator(".groups tbody tr").first.wait_for(timeout=300_000)
        first = on_screen()
        wait_until(lambda: on_screen() >= first + 2, 300, "two more steps on screen")
        assert launch.state(run).state == "running"

        page.locator(".groups tbody tr td.prompt").first.click()
        page.locator(".hero").wait_for()
        step = int(page.evaluate("new URLSearchParams(location.search).get('step')"))
        prompt = page.evaluate("new URLSearchParams(location.search).get('prompt')")
        stored = record_rows(
            run,
            "SELECT s.advantage FROM samples s JOIN groups g ON g.id = s.group_id JOIN steps t ON t.id = g.step_id "
            "WHERE t.step = ? AND t.kind = 'train' AND g.prompt_id = ?",
            step,
            prompt,
        )
        asked = sorted(number(text) for text in texts(page.locator(".sib tbody td:nth-child(5)")))
        assert asked == pytest.approx(sorted(round(value, 2) for (value,) in stored), abs=0.0051)

        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
        before = launch.state(run).step
        wait_until(lambda: launch.state(run).step >= before + 2, 300, "the run goes on without the app")
        app, address = serve(tmp_path)
        page.goto(f"{address}?token={TOKEN}&run={run.id}")
        expect(page.locator(".live")).to_contain_text("Running", timeout=60_000)

        psutil.Process(run.status()["pid"]).kill()
        expect(page.locator(".live")).to_contain_text("Crashed at step", timeout=10_000)
        panel = page.locator("#wb-reader").inner_text()
        assert any(line.strip() and line.strip()[:60] in panel for line in run.log_tail(10))
        assert launch.state(run).state == "crashed"
    finally:
        for folder in folders(tmp_path):
            launch.stop(folder, grace=0, kill_after=5)
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
