"""Rating samples in a real browser: in the Group view, and on Live while a run waits for it."""

import subprocess
import sys
import time

import psutil
import pytest
from playwright.sync_api import expect

from tests.fakes import make_step, write_fake_run
from tests.helpers import wait_until
from tests.ui.reading import open_reader, texts
from workbench.launch import identity
from workbench.record import rating
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader

pytestmark = pytest.mark.ui
STEP = 4


@pytest.fixture
def run(tmp_path):
    return write_fake_run(tmp_path, steps=6, total=6, groups=3, samples=5, seed=4, name="rated")


def ratings(run) -> dict[str, tuple[bool | None, int | None]]:
    return {one.text: (one.thumb, one.place) for one in Notes(run).ratings()}


def test_thumbs_and_ranks_of_a_group_come_from_the_keyboard_and_stay(page, dashboard, run):
    group = Reader(run).group(STEP, Reader(run).groups(STEP)[0]["k"])
    samples = [sample["text"] for sample in group["samples"]]
    served = dashboard(run.path.parent)
    open_reader(page, served, run, view="group", step=STEP, prompt=group["prompt_id"], sample=0)
    page.keyboard.press("g")
    expect(page.locator('[data-card="0"] .chip.good')).to_have_text("good")
    wait_until(lambda: ratings(run) == {samples[0]: (True, None)})
    page.keyboard.press("x")
    expect(page.locator('[data-card="0"] .chip.bad')).to_have_text("bad")
    page.keyboard.press("x")
    expect(page.locator('[data-card="0"] .chip.rated')).to_have_count(0)
    wait_until(lambda: ratings(run) == {})

    different = list(dict.fromkeys(samples))[:2]
    numbers = [samples.index(text) + 1 for text in different]
    page.keyboard.press("r")
    expect(page.locator(".raterow.ranking")).to_contain_text("Best first")
    for number in reversed(numbers):
        page.keyboard.press(str(number))
    expect(page.locator(".places .chip").first).to_have_text(f"1st #{numbers[1]}")
    wait_until(lambda: ratings(run) == {different[1]: (None, 1), different[0]: (None, 2)})
    page.keyboard.press("Backspace")
    wait_until(lambda: ratings(run) == {different[1]: (None, 1)})
    page.keyboard.press("Escape")
    expect(page.locator(".raterow.ranking")).to_have_count(0)
    page.reload()
    expect(page.locator(".cards .chip.rated").first).to_have_text("1st")


def test_a_refused_rating_is_undone_on_screen_with_the_reason(page, dashboard, run):
    group = Reader(run).group(STEP, 0)
    open_reader(page, dashboard(run.path.parent), run, view="group", step=STEP, prompt=group["prompt_id"])
    run.notes_path.write_bytes(b"no database " * 100)
    page.keyboard.press("g")
    expect(page.locator(".keys .keystatus")).to_contain_text("file is not a database")
    expect(page.locator(".cards .chip.rated")).to_have_count(0)


def test_live_shows_what_waits_with_the_time_left_and_takes_ratings(page, dashboard, run):
    step = make_step(6, groups=2, samples=3, seed=9)
    hostile = "<img src=x onerror=alert(1)>"
    rollouts = step.groups[0].rollouts
    step.groups[0] = step.groups[0].__class__(
        step.groups[0].prompt, (rollouts[0].__class__(rollouts[0].token_ids, rollouts[0].logprobs, hostile, "stop"),
                                *rollouts[1:])
    )  # fmt: skip
    token = "stands-in-for-a-waiting-worker"
    worker = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)", token])
    try:
        until = time.time() + 599
        created = identity.start_time(psutil.Process(worker.pid))
        status = {"pid": worker.pid, "create_time": created, "boot_id": identity.boot_id(), "token": token}
        status |= {
            "state": "running",
            "phase": "rate",
            "phase_done": 0,
            "phase_total": 6,
            "step": 6,
            "steps": 9,
        }
        run.write_status(run.status() | status | {"ended": None, "heartbeat": time.time(), "until": until})
        rating.request_ratings(run, 6, until, step.groups)
        open_reader(page, dashboard(run.path.parent), run)
        panel = page.locator(".pendingratings")
        expect(panel).to_contain_text("6 samples of step 6 without one")
        assert int(panel.locator("[role=timer]").inner_text().split(":")[0]) == 9
        assert texts(panel.locator(".card pre"))[0] == hostile
        page.keyboard.press("g")  # and on to the next sample
        expect(panel.locator(".card").first.locator(".chip.good")).to_have_text("good")
        page.keyboard.press("x")
        page.keyboard.press("j")
        expect(panel).to_contain_text("Prompt 2 of 2")
        page.keyboard.press("2")
        page.keyboard.press("g")
        first, second = step.groups
        expected = {
            hostile: True,
            first.rollouts[1].text: False,
            second.rollouts[1].text: True,
        }
        wait_until(lambda: {one.text: one.thumb for one in Notes(run).ratings()} == expected)
        assert {one.visit for one in Notes(run).ratings()} == {Visit(6)}
        page.get_by_role("button", name="Continue without the rest").click()
        wait_until(lambda: Notes(run).kept(rating.STOP_WAITING) == {"6": True})
    finally:
        worker.kill()
        worker.wait()
