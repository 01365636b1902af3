"""The Live view in a real browser: what it shows is what was recorded, and every part of it leads somewhere."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Route, expect

from tests.fakes import fake_config, make_step, token_text, write_fake_run
from tests.helpers import Yard, wait_until
from tests.ui.reading import GROUPS, number, open_reader, query, record_rows, texts
from workbench import launch
from workbench.launch import identity
from workbench.record.folder import create
from workbench.record.reader import Reader
from workbench.record.writer import Writer

pytestmark = pytest.mark.ui
VIEW = Path(__file__).parents[2] / "workbench" / "view"


@pytest.fixture(scope="module")
def recorded_run(tmp_path_factory):
    """31 steps of 16 groups, checks, one alarm, one changed setting."""
    return write_fake_run(tmp_path_factory.mktemp("live"), steps=31, total=50, seed=2, name="chain-s2")


@pytest.fixture(scope="module")
def served(dashboard, recorded_run):
    return dashboard(recorded_run.path.parent)


def test_the_newest_step_on_screen_is_the_newest_of_the_record(page, served, recorded_run):
    open_reader(page, served, recorded_run)
    expect(page.locator(".groups h2")).to_have_text("Step 30: where the gradient comes from")
    expect(page.locator(".run .facts")).to_contain_text("31 of 50 steps")
    [(reward,)] = record_rows(
        recorded_run, "SELECT value FROM metrics WHERE name = 'reward' AND step = 30 AND kind = 'train'"
    )
    label = page.locator(".ch").first.locator(".ends span", has_text="train")
    assert number(label.inner_text().removeprefix("train")) == pytest.approx(reward, abs=0.005)


def test_rows_are_the_living_groups_by_share_of_the_gradient(page, served, recorded_run):
    open_reader(page, served, recorded_run, step=30)
    rows = record_rows(
        recorded_run,
        f"SELECT question, gradient_share, reward_std FROM {GROUPS}"
        " WHERE step = 30 AND kind = 'train' AND zero_std = '' ORDER BY gradient_share DESC",
    )
    assert texts(page.locator(".groups tbody td.prompt a")) == [question for question, _, _ in rows]
    shares = [number(text) for text in texts(page.locator(".groups tbody .sharecol"))]
    assert shares == pytest.approx([share for _, share, _ in rows], abs=0.0051)
    sigmas = [number(text) for text in texts(page.locator(".groups tbody td:nth-child(4)"))]
    assert sigmas == pytest.approx([std for _, _, std in rows], abs=0.0051)


def test_a_row_has_one_dot_a_sample_and_a_dot_opens_its_sample(page, served, recorded_run):
    open_reader(page, served, recorded_run, step=12)
    first = page.locator(".groups tbody tr").first
    assert first.locator(".dot").count() == 12
    first.locator(".dot[data-sample='5']").click()
    page.locator(".hero").wait_for()
    assert query(page)["view"] == "group" and query(page)["step"] == "12" and query(page)["sample"] == "5"
    assert page.locator(".card.picked .hd b").first.inner_text() == "#6"


@pytest.mark.parametrize("view", ["live", "group"])
def test_the_newest_step_is_named_below_the_cells_and_touches_no_other_figure(
    page, served, recorded_run, view
):
    open_reader(page, served, recorded_run, step=12, view=view)
    ribbon = page.locator(".ribbon:visible")
    label = ribbon.locator(".liverule text").bounding_box()
    frame = ribbon.locator("rect.cursor").bounding_box()  # 1.5 px around the cells
    assert label["y"] > frame["y"] + frame["height"] - 1.5
    figures = [figure.bounding_box() for figure in ribbon.locator("svg > text").all()]
    assert figures
    for figure in figures:
        assert figure["x"] + figure["width"] <= label["x"] or figure["x"] >= label["x"] + label["width"]


def test_a_touch_parks_the_view_and_one_click_goes_live_again(page, served, recorded_run):
    open_reader(page, served, recorded_run)
    assert "step" not in query(page)
    page.keyboard.press("h")
    expect(page.locator(".live.parked")).to_have_text("Parked at step 29")
    expect(page.locator(".groups h2")).to_contain_text("Step 29")
    assert query(page)["step"] == "29"
    page.get_by_role("button", name="Finished at step 30, go to the end").click()
    expect(page.locator(".live")).to_have_text("Finished")
    assert "step" not in query(page)


def test_the_ribbon_moves_the_cursor_by_pointer_and_by_keys(page, served, recorded_run):
    open_reader(page, served, recorded_run)
    stage = page.locator(".viewlive .stage")
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] * 12.5 / 50, "y": 50})
    expect(page.locator(".live.parked")).to_have_text("Parked at step 12")
    stage.press("ArrowRight")
    expect(page.locator(".live.parked")).to_have_text("Parked at step 13")
    assert "step 13" in stage.get_attribute("aria-valuetext")


def test_a_point_of_a_chart_leads_to_its_step(page, served, recorded_run):
    open_reader(page, served, recorded_run)
    over = page.locator(".ch .u-over").first
    box = over.bounding_box()
    over.click(position={"x": box["width"] * 10 / 30, "y": 40})
    expect(page.locator(".groups h2")).to_contain_text("Step 10")


def test_keys_walk_open_return_and_copy(page, served, recorded_run):
    open_reader(page, served, recorded_run, step=20)
    prompts = texts(page.locator(".groups tbody td.prompt a"))
    expect(page.locator(".groups tr.sel td.prompt a")).to_have_text(prompts[0])
    page.keyboard.press("j")
    expect(page.locator(".groups tr.sel td.prompt a")).to_have_text(prompts[1])
    page.keyboard.press("Enter")
    expect(page.locator(".viewgroup h1")).to_have_text(prompts[1])
    page.keyboard.press("y")
    expect(page.locator(".keystatus")).to_have_text("Link copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert f"run={recorded_run.id}" in link and "view=group" in link and "step=20" in link
    page.keyboard.press("Escape")
    expect(page.locator(".viewlive")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_keys_are_left_alone_while_somebody_types(page, served, recorded_run):
    open_reader(page, served, recorded_run)
    page.evaluate(
        "document.querySelector('#wb-reader').append(Object.assign(document.createElement('input'), {id: 'typed'}))"
    )
    page.locator("#typed").press_sequentially("hjkl")
    assert "step" not in query(page) and page.locator("#typed").input_value() == "hjkl"


def test_an_underlined_word_explains_itself_with_the_numbers_of_the_step(page, served, recorded_run):
    open_reader(page, served, recorded_run, step=26)
    [(dead,)] = record_rows(
        recorded_run, f"SELECT count(*) FROM {GROUPS} WHERE step = 26 AND kind = 'train' AND zero_std != ''"
    )
    page.locator(".ch [data-tip=frac_reward_zero_std]").hover()
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("step 26")
    expect(tip).to_contain_text(f"{dead} ÷ 16 = {round(dead / 16 * 100)} %")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.locator(".groups [data-tip=reward_std]").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(tip).to_be_visible()


def test_a_running_run_grows_on_screen_without_a_reload(page, dashboard, tmp_path):
    config = fake_config(groups=4, samples=6, steps=12)
    folder = create(tmp_path, config)
    token = "stands-in-for-a-worker"
    worker = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)", token])
    try:

        def tell(step: int, phase: str = "sample") -> None:
            now = time.time()
            folder.write_status(
                {
                    "state": "running",
                    "phase": phase,
                    "phase_done": 9,
                    "phase_total": 24,
                    "step": step,
                    "steps": 12,
                    "pid": worker.pid,
                    "create_time": identity.start_time(psutil.Process(worker.pid)),
                    "boot_id": identity.boot_id(),
                    "token": token,
                    "heartbeat": now,
                    "progress_at": now,
                    "started": now - 5,
                    "ended": None,
                    "reason": "",
                    "eta": 20.0,
                }
            )

        with Writer(folder, config, token_text=token_text) as record:
            tell(0)
            served = dashboard(tmp_path)
            open_reader(page, served, folder)
            expect(page.locator(".viewlive h1")).to_have_text("Drawing 24 samples, 9 done.")
            assert page.locator(".startup .on").inner_text() == "sample"
            for step in range(3):
                record.step(make_step(step, groups=4, samples=6, steps=12, config=config))
                record.flush()
                tell(step + 1)
                expect(page.locator(".groups h2")).to_contain_text(f"Step {step}:")
            expect(page.locator(".live")).to_have_text("Running")
            page.keyboard.press(" ")
            expect(page.locator(".live.parked")).to_have_text("Parked at step 2")
            record.step(make_step(3, groups=4, samples=6, steps=12, config=config))
            record.flush()
            tell(4)
            expect(page.get_by_role("button", name="Running at step 3, go live")).to_be_visible()
            expect(page.locator(".groups h2")).to_contain_text("Step 2:")
    finally:
        worker.kill()
        worker.wait()
    expect(page.locator(".live.bad")).to_have_text("Crashed at step 4")
    expect(page.locator(".viewlive h1")).to_contain_text("Crashed at step 4")
    expect(page.get_by_role("button", name="Open the log")).to_be_visible()


@pytest.mark.slow
def test_pause_continue_and_a_stop_that_can_be_undone(page, dashboard, tmp_path):
    yard = Yard(tmp_path)
    try:
        folder = yard.start(steps=5000, step_seconds=0.05)
        yard.reaches(folder, "running")
        open_reader(page, dashboard(tmp_path), folder)
        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".live")).to_have_text("Paused")
        assert launch.state(folder).state == "paused"
        page.get_by_role("button", name="Continue").click()
        expect(page.locator(".live")).to_have_text("Running")
        page.get_by_role("button", name="Stop and save").click()
        expect(page.locator(".runacts .note")).to_contain_text("Stops and saves in")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".runacts .note")).to_have_count(0)
        yard.goes_on(folder)
        page.get_by_role("button", name="Stop and save").click()
        yard.reaches(folder, "stopped")
        expect(page.locator(".live")).to_have_text("Stopped")
    finally:
        yard.close()


def test_a_lost_server_is_shown_in_a_thin_bar_and_found_again(page, served, recorded_run):
    def away(route: Route) -> None:
        route.abort()

    page.route("**/delta*", away)
    page.goto(served.url(run=recorded_run.id))
    bar = page.locator(".lost")
    expect(bar).to_contain_text("Not connected. The run continues. Trying again in")
    page.unroute("**/delta*", away)
    expect(bar).to_be_hidden()
    expect(page.locator(".groups h2")).to_contain_text("Step 30")


def test_a_hidden_page_does_not_poll_and_a_shown_one_polls_at_once(own_page, served, recorded_run):
    page = own_page  # its clock is that of every page of its profile
    open_reader(page, served, recorded_run)
    polls: list[str] = []
    page.on("request", lambda request: polls.append(request.url) if "/delta" in request.url else None)

    def show(hidden: bool) -> None:
        page.evaluate(
            """hidden => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
            hidden,
        )

    show(True)
    page.clock.install()
    page.clock.fast_forward(60_000)
    assert polls == []
    show(False)
    wait_until(lambda: page.wait_for_timeout(20) or polls, what="a request after the page is shown")


def test_deltas_bring_only_what_is_new(own_page, served, recorded_run):
    page = own_page  # its clock is that of every page of its profile
    page.clock.install()
    with page.expect_response("**/delta") as first:
        page.goto(served.url(run=recorded_run.id))
    page.wait_for_selector(".groups table")
    with page.expect_response("**/delta?since=*", timeout=30_000) as second:
        page.clock.fast_forward(60_000)  # a run that is over is polled rarely
    assert len(first.value.json()["steps"]) == 31
    assert second.value.json()["steps"] == [] and second.value.json()["ribbon"] == []


@pytest.mark.parametrize("width", [780, 1000])
def test_between_phone_and_desk_the_top_bar_stays_one_line(page, served, recorded_run, width):
    page.set_viewport_size({"width": width, "height": 700})
    open_reader(page, served, recorded_run)
    bar = page.locator(".wb .top").first.bounding_box()
    links = page.locator(".wb .top").first.locator("a:visible, button:visible, summary:visible").all()
    assert links
    for box in (link.bounding_box() for link in links):
        assert bar["y"] <= box["y"] and box["y"] + box["height"] <= bar["y"] + bar["height"]
        assert box["x"] + box["width"] <= width


@pytest.mark.slow
def test_an_alarm_shows_its_samples_and_is_muted_and_heard_again(page, served, recorded_run):
    open_reader(page, served, recorded_run)
    alarm = page.locator("[data-alarm=entropy]")
    alarm.get_by_role("button", name=re.compile("^See")).click()
    sheet = page.locator("dialog[open]")
    [(evidence,)] = record_rows(recorded_run, "SELECT evidence_json FROM alarms WHERE name = 'entropy'")
    places = json.loads(evidence)["samples"]
    expect(sheet.locator("article")).to_have_count(len(places))
    of = Reader(recorded_run).group(places[0]["step"], places[0]["group"])
    text = of["samples"][places[0]["index"]]["text"]
    assert sheet.locator("pre").first.inner_text().split() == text.split()
    sheet.get_by_role("link", name="Open its group").first.click()
    expect(page.locator(".viewgroup h1")).to_be_visible()
    assert query(page)["sample"] == str(places[0]["index"])
    page.keyboard.press("Escape")
    alarm.get_by_role("button", name="Mute").click()
    muted = page.get_by_role("button", name="1 alarm muted")
    expect(muted).to_be_visible()
    expect(alarm).to_have_count(0)
    page.reload()
    muted.click()
    alarm.get_by_role("button", name="Unmute").click()
    expect(muted).to_have_count(0)
    expect(alarm).to_be_visible()


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_a_phone_has_everything_in_reach_and_nothing_overflows(page, served, recorded_run, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 390, "height": 844})
    open_reader(page, served, recorded_run)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="1 alarm").click()
    expect(page.get_by_role("heading", name="Entropy fell to 13 % of its start")).to_be_in_viewport()
    page.locator("#wb-top summary").click()
    page.locator("#wb-top details a", has_text="Group").click()
    expect(page.locator(".viewgroup .picture")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1440, pytest.param(390, marks=pytest.mark.slow)])
@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious(page, served, recorded_run, theme, width):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    open_reader(page, served, recorded_run)
    for key in ("Enter", "p"):
        found = Axe().run(page, context="#wb-reader").response["violations"]
        assert [
            (rule["id"], rule["nodes"][0]["html"][:200])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ] == []
        page.keyboard.press(key)
        page.locator(".hero, .riverpanel svg").locator("visible=true").first.wait_for()


def test_the_reader_builds_no_markup_from_text_and_knows_nothing_of_gradio():
    banned = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "eval(",
        "new Function",
        "gradio",
    )
    found = [
        f"{path.name}: {word}"
        for path in sorted(VIEW.glob("*/*.js"))
        if path.name not in ("boot.js", "form.js", "runs.js")
        for word in banned
        if word.lower() in path.read_text().lower()
    ]
    assert found == []


@pytest.mark.slow
def test_a_queued_run_names_the_one_that_holds_the_device_and_leads_there(page, dashboard, tmp_path):
    yard = Yard(tmp_path)
    try:
        holder = yard.start(step_seconds=0.05)
        yard.reaches(holder, "running")
        queued = yard.start()
        yard.reaches(queued, "queued")
        open_reader(page, dashboard(tmp_path), queued)
        expect(page.locator(".viewlive .verdict h1")).to_contain_text(
            f"Waiting for the device: {holder.id} holds it"
        )
        page.locator(".startup").get_by_role("link", name=holder.id).click()
        expect(page.locator(".run .live")).to_have_text("Running")
        assert query(page)["run"] == holder.id
    finally:
        yard.close()


def test_a_phone_can_change_settings_and_save_a_checkpoint(page, dashboard, tmp_path):
    yard = Yard(tmp_path)
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        run = yard.start(step_seconds=0.05, shows=1)
        yard.reaches(run, "running")
        open_reader(page, dashboard(tmp_path), run)
        page.get_by_role("button", name="More…").click()
        page.get_by_role("button", name="Snapshot").click()
        wait_until(
            lambda: [
                e for e in Reader(run).events(kind="command") if e["data"].get("command") == "checkpoint"
            ]
        )
        page.get_by_role("button", name="More…").click()
        page.get_by_role("button", name="Change…").click()
        expect(page.get_by_role("dialog", name="Change settings")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        yard.close()
