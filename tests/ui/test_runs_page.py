"""Runs in a real browser: every run with its state, curve and verdict; open and stop."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.helpers import Yard
from tests.ui.reading import number, record_rows

pytestmark = pytest.mark.ui


@pytest.fixture(scope="module")
def recorded_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs-page")
    damaged = write_fake_run(root, steps=1, groups=2, samples=2)
    damaged.config_path.write_text("{ half")
    hostile = write_fake_run(
        root,
        steps=6,
        groups=4,
        samples=4,
        seed=2,
        state="stopped",
        name="<img src=x onerror=document.title='owned'>",
    )
    return {
        "damaged": damaged,
        "hostile": hostile,
        "first": write_fake_run(root, steps=31, total=50, seed=2, name="chain-s2"),
    }


@pytest.fixture(scope="module")
def served(dashboard, recorded_runs):
    return dashboard(recorded_runs["first"].root)


def row(page, run):
    return page.locator(f"tr[data-run='{run.id}']")


def test_a_row_shows_what_was_recorded_and_leads_to_its_run(page, served, recorded_runs):
    run = recorded_runs["first"]
    page.goto(served.url("/runs"))
    expect(row(page, run)).to_contain_text("31 of 50", timeout=60_000)
    expect(row(page, run).locator(".live")).to_have_text("Finished")
    expect(row(page, run).locator(".wb-run-name")).to_contain_text("chain · β 0 · lr")
    [(sampled,)] = record_rows(
        run, "SELECT value FROM metrics WHERE name = 'heldout/sampled/accuracy' ORDER BY step DESC LIMIT 1"
    )
    assert number(row(page, run).locator(".wb-run-check b").inner_text()) == pytest.approx(
        sampled, abs=0.0051
    )
    points = row(page, run).locator("polyline").get_attribute("points")
    assert points is not None and len(points.split()) == 31
    expect(row(page, run).locator(".wb-run-verdict")).to_have_text(re.compile(r"^[A-Z][a-z]+( [a-z]+)?[:,.]"))
    row(page, run).get_by_role("link", name="chain-s2").click()
    page.wait_for_url(f"**/?run={run.id}*")
    expect(page.locator("#wb-reader .runname")).to_have_text("chain-s2", timeout=60_000)


def test_a_damaged_run_is_listed_with_its_reason_and_a_name_is_only_text(page, served, recorded_runs):
    page.goto(served.url("/runs"))
    expect(row(page, recorded_runs["damaged"])).to_contain_text("config.json", timeout=60_000)
    expect(row(page, recorded_runs["hostile"])).to_contain_text("<img src=x onerror=")
    assert page.title() != "owned" and page.locator("#wb-runs img").count() == 0


@pytest.mark.slow
def test_stop_is_told_to_the_run_and_seen_in_its_row(page, dashboard, tmp_path):
    yard = Yard(tmp_path)
    try:
        run = yard.start(step_seconds=0.1)
        yard.goes_on(run)
        page.goto(dashboard(tmp_path).url("/runs"))
        expect(row(page, run).locator(".live")).to_have_text("Running", timeout=60_000)
        row(page, run).get_by_role("button", name="Stop and save").click()
        yard.reaches(run, "stopped")
        expect(row(page, run).locator(".live")).to_have_text("Stopped")
        expect(row(page, run).get_by_role("button")).to_have_count(0)
    finally:
        yard.close()


def test_no_runs_at_all_offers_to_start_one(page, dashboard, tmp_path):
    page.goto(dashboard(tmp_path).url("/runs"))
    expect(page.locator(".wb-empty")).to_contain_text("No runs here yet", timeout=60_000)
    page.get_by_role("link", name="Start the first one").click()
    page.wait_for_url("**/new")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.slow)])
def test_nothing_overflows_and_axe_finds_nothing_serious(page, served, theme, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(served.url("/runs", __theme=theme))
    page.locator("#wb-runs tbody tr").first.wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".wb-runs-panel").evaluate("panel => panel.scrollWidth - panel.clientWidth") == 0
    found = [
        entry
        for entry in Axe().run(page).response["violations"]
        if entry["impact"] in ("serious", "critical")
    ]
    assert [(entry["id"], [node["html"][:120] for node in entry["nodes"]]) for entry in found] == []
