"""What a newcomer comes for, counted in real pointer clicks from the Live page. A count that grows fails."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.fakes import write_fake_run
from tests.helpers import Yard, wait_until
from tests.ui.reading import GROUPS, number, record_rows, texts
from workbench import launch
from workbench.record.folder import RunFolder, folders
from workbench.record.reader import Reader
from workbench.rewards.builtin import answers

pytestmark = [pytest.mark.ui, pytest.mark.timeout(600)]
COUNTER = """addEventListener("click", (event) => {
  if (event.isTrusted && event.detail) sessionStorage.clicks = Number(sessionStorage.clicks ?? 0) + 1;
}, true)"""


class Clicks:
    """Counts the clicks that a pointer really made, over page changes; Enter on a button is none."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.add_init_script(COUNTER)

    def on(self, selector: str) -> None:
        """One click."""
        self.page.locator(selector).locator("visible=true").first.click()

    @property
    def count(self) -> int:
        """How many so far."""
        return int(self.page.evaluate("Number(sessionStorage.clicks ?? 0)"))


@pytest.fixture
def clicks(page: Page) -> Clicks:
    return Clicks(page)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The run that every task finds; each gets a copy of its own."""
    return write_fake_run(tmp_path_factory.mktemp("tasks"), steps=31, total=50, seed=2, name="earlier")


@pytest.fixture
def live(page: Page, dashboard, earlier, tmp_path):
    """A dashboard with one recorded run, opened on Live."""
    run = RunFolder(shutil.copytree(earlier.path, tmp_path / earlier.id))
    served = dashboard(tmp_path)

    def open_live() -> None:
        page.goto(served.url("/"))
        page.locator(".groups tbody tr").first.wait_for(timeout=60_000)

    return served, run, open_live


@pytest.mark.slow
def test_task_01_start_the_built_in_demo_run_on_the_cpu(page, clicks, live, tmp_path):
    _, earlier, open_live = live
    open_live()
    clicks.on("#wb-top [data-page=new]")
    page.locator("#wb-start:has-text('50 steps')").wait_for(timeout=60_000)
    clicks.on("#wb-start")
    page.wait_for_url(re.compile(r"/\?run=\d{8}-"), timeout=120_000)
    assert clicks.count == 2
    [run] = [folder for folder in folders(tmp_path) if folder.id != earlier.id]
    try:
        # Live says what goes on until the first group is there, then shows it as it was recorded.
        expect(page.locator("#wb-reader .run")).to_be_visible(timeout=60_000)
        page.locator(".groups tbody tr").first.wait_for(timeout=300_000)
        shown = page.locator(".groups h2").inner_text()
        step = int(shown.removeprefix("Step ").partition(":")[0])
        [(best,)] = record_rows(
            run, f"SELECT max(gradient_share) FROM {GROUPS} WHERE kind = 'train' AND step = ?", step
        )
        assert number(page.locator(".groups .sharecol").first.inner_text()) == pytest.approx(best, abs=0.0051)
        assert run.config().model == "embedded" and run.config().steps == 50
    finally:
        launch.stop(run, grace=0, kill_after=10)


def test_task_02_see_the_newest_group_with_its_rewards_and_advantages(page, clicks, live):
    _, run, open_live = live
    open_live()
    clicks.on(".groups tbody tr td.prompt")
    page.locator(".hero").wait_for()
    assert clicks.count == 1
    newest = "WHERE kind = 'train' ORDER BY step DESC, gradient_share DESC LIMIT 1"
    [(group_id, question)] = record_rows(run, f"SELECT id, question FROM {GROUPS} {newest}")
    expect(page.locator(".head h1")).to_contain_text(question)
    stored = record_rows(
        run, "SELECT advantage FROM samples WHERE group_id = ? ORDER BY sample_index", group_id
    )
    # Siblings are listed by what went against the ask first, so both sides are compared sorted.
    asked = sorted(number(text) for text in texts(page.locator(".sib tbody td:nth-child(5)")))
    assert asked == pytest.approx(sorted(round(value, 2) for (value,) in stored), abs=0.0051)


def test_task_03_find_why_a_sample_got_its_reward(page, clicks, live):
    _, run, open_live = live
    open_live()
    clicks.on(".groups tbody tr td.prompt")
    page.locator(".hero").wait_for()
    clicks.on(".parts .partname")  # one more than to see the group
    sheet = page.locator("dialog.codesheet[open]")
    expect(sheet.locator(".code")).to_contain_text("def correct(")
    assert clicks.count == 2
    # The very lines, with the numbers they have in the file.
    lines = Path(str(answers.__file__)).read_text().splitlines()
    shown = sheet.locator(".code .row").evaluate_all(
        "rows => rows.map((row) => [...row.children].map((one) => one.textContent))"
    )
    assert all(lines[int(number_) - 1].strip() == text.strip() for number_, text in shown if number_ != "⋯")
    picked = int(page.locator(".sib tr.picked button").inner_text()) - 1
    group = "SELECT id FROM groups WHERE step_id = (SELECT max(id) FROM steps WHERE kind = 'train') ORDER BY gradient_share DESC LIMIT 1"
    [(value,)] = record_rows(
        run,
        f"SELECT value FROM sample_rewards JOIN samples ON samples.id = sample_id WHERE group_id = ({group}) AND name = 'correct' ORDER BY sample_index LIMIT 1 OFFSET ?",
        picked,
    )
    assert number(sheet.locator(".codefacts b").first.inner_text()) == value


def test_task_04_write_a_reward_and_test_it_on_real_samples(page, clicks, live):
    _, run, open_live = live
    open_live()
    clicks.on("#wb-top [data-page=lab]")
    page.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)
    clicks.on("#wb-lab .cm-content")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("def short(completion: str) -> float:\n    return 1 - len(completion) / 200\n")
    clicks.on("#lab-run")
    expect(page.locator("#wb-lab .lab-checks")).to_contain_text("same score twice", timeout=60_000)
    assert clicks.count == 3
    first = "(SELECT min(id) FROM groups WHERE step_id IN (SELECT id FROM steps WHERE kind = 'train' AND step = 26))"
    stored = record_rows(
        run, f"SELECT completion, reward FROM samples WHERE group_id = {first} ORDER BY sample_index"
    )
    rows = page.locator("#wb-lab tr[data-sample]")
    expect(rows).to_have_count(len(stored))
    heads = texts(page.locator("#wb-lab .lab-result thead th"))
    for index, (text, reward) in enumerate(stored):
        cells = texts(page.locator(f"#wb-lab tr[data-sample='{index}'] td"))
        assert number(cells[heads.index("r, v1*")]) == pytest.approx(1 - len(text) / 200, abs=0.0051)
        assert number(cells[heads.index("r, recorded")]) == pytest.approx(reward, abs=0.0051)


def test_task_05_find_out_whether_a_reward_is_hackable_before_training(page, clicks, live):
    _, _, open_live = live
    open_live()
    clicks.on("#wb-top [data-page=lab]")
    page.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)
    clicks.on("#lab-attack")
    tricks = page.locator("#wb-lab [data-trick]")
    tricks.first.wait_for(timeout=60_000)
    assert clicks.count == 2
    found = {trick.get_attribute("data-trick"): trick.get_attribute("data-verdict") for trick in tricks.all()}
    # The first reward of the lab reads the tag at the end: an empty sample and the format alone earn nothing there.
    assert found["empty"] == found["format only"] == found["prompt echo"] == "safe" and len(found) >= 12
    through = sum(verdict == "hackable" for verdict in found.values())
    # The worst come first, and the headline counts them.
    assert list(found.values())[:through] == ["hackable"] * through
    part = sum(verdict == "doubtful" for verdict in found.values())
    found_by = f"{through} attack" if through else f"{part} attack" if part else "no attack"
    expect(page.locator("#wb-lab .lab-bar h1")).to_contain_text(found_by)


@pytest.fixture
def yard(tmp_path):
    """Living runs that only count."""
    made = Yard(tmp_path)
    yield made
    made.close()


def test_task_06_pause_change_beta_and_continue(page, clicks, dashboard, yard, tmp_path):
    run = yard.start(steps=5000, step_seconds=0.05, shows=3)
    yard.reaches(run, "running")
    page.goto(dashboard(tmp_path).url("/"))
    page.locator(".groups tbody tr").first.wait_for(timeout=60_000)
    clicks.on(".runacts button:has-text('Pause')")
    expect(page.locator(".live")).to_have_text("Paused")
    clicks.on("[data-key=set-beta]")
    field = page.locator("#change-beta")
    expect(field).to_be_focused()
    # The error is shown beside the field, and nothing is sent.
    field.fill("-1")
    expect(page.locator("#change-beta-problem")).to_contain_text("cannot be negative")
    field.fill("0.04")
    expect(page.locator("#change-beta-problem")).to_be_empty()
    field.press("Enter")
    [event] = wait_until(lambda: Reader(run).events(kind="setting_changed"))
    assert event["data"] == {"beta": {"from": 0.0, "to": 0.04}} and event["step"] == launch.state(run).step
    expect(page.locator(".runacts .note")).to_contain_text("Set taken")
    expect(page.locator("[data-key=set-beta]")).to_have_text("0.04")
    expect(page.locator(".ribbon .pencil title").first).to_have_text(f"step {event['step']}: beta 0 → 0.04")
    clicks.on(".runacts button:has-text('Continue')")
    yard.reaches(run, "running")
    assert clicks.count == 3


def test_task_09_act_on_an_alarm(page, clicks, dashboard, yard, tmp_path):
    remedies = [{"label": "Beta 0 → 0.04", "command": "set", "args": {"beta": 0.04}}]
    alarm = {
        "name": "drift",
        "level": "warning",
        "step": 2,
        "claim": "Drifting without gain",
        "text": "KL .01 → .3.",
        "remedies": remedies,
    }
    run = yard.start(steps=5000, step_seconds=0.05, shows=3, alarm=alarm)
    yard.reaches(run, "running")
    page.goto(dashboard(tmp_path).url("/"))
    expect(page.locator(".alarm h3")).to_contain_text("Drifting without gain", timeout=60_000)
    clicks.on(".alarm button:has-text('Beta 0 → 0.04')")
    assert clicks.count == 1  # the alarm is open already: one less than the two one would expect
    [event] = wait_until(lambda: Reader(run).events(kind="setting_changed"))
    assert event["data"] == {"beta": {"from": 0.0, "to": 0.04}}


def test_task_07_close_the_browser_return_and_see_the_run_as_it_is(page, clicks, live):
    served, run, open_live = live
    open_live()
    context, address = page.context, served.address
    page.close()
    again = context.new_page()
    returned = Clicks(again)
    again.goto(address)  # no token: the cookie is enough
    expect(again.locator(".groups h2")).to_have_text("Step 30: where the gradient comes from", timeout=60_000)
    expect(again.locator(".run .runname")).to_have_text("earlier")
    [(reward,)] = record_rows(
        run, "SELECT value FROM metrics WHERE name = 'reward' AND kind = 'train' AND step = 30"
    )
    label = again.locator(".ch").first.locator(".ends span", has_text="train")
    assert number(label.inner_text().removeprefix("train")) == pytest.approx(reward, abs=0.005)
    assert returned.count == 0
    wait_until(lambda: launch.state(run).over)


def test_task_08_follow_one_prompt_from_step_0_to_now(page, clicks, live):
    _, run, open_live = live
    open_live()
    clicks.on(".groups tbody tr td.prompt")
    page.locator(".hero").wait_for()
    clicks.on(".head [data-key=overtime]")
    page.locator(".riverpanel h2").first.wait_for()
    assert clicks.count == 2
    newest = (
        f"SELECT prompt_id FROM {GROUPS} WHERE kind = 'train' ORDER BY step DESC, gradient_share DESC LIMIT 1"
    )
    visits = record_rows(
        run,
        f"SELECT step, correct_count, size FROM {GROUPS} WHERE prompt_id = ({newest}) AND kind = 'train' ORDER BY step",
    )
    assert len(visits) > 1 and visits[0][0] < visits[-1][0]
    first, last = (round(100 * right / n) for _, right, n in (visits[0], visits[-1]))
    expect(page.locator(".riverpanel h2").first).to_have_text(
        f"{first} % → {last} % right in {len(visits)} visits."
    )
    expect(page.locator(".river [data-visit]")).to_have_count(len(visits))


@pytest.mark.slow
def test_task_10_compare_two_values_of_beta_on_the_same_prompts(page, clicks, live, tmp_path):
    _, first, _ = live
    second = write_fake_run(tmp_path, steps=20, total=50, seed=2, name="pulled")
    about = second.about()
    second.config_path.write_text(json.dumps({**about, "config": {**about["config"], "beta": 0.04}}))
    page.goto(live[0].url("/", run=first.id))
    page.locator(".groups tbody tr").first.wait_for(timeout=60_000)
    clicks.on("#wb-top [data-page=runs]")  # the run one comes from is ticked there
    clicks.on(f"#wb-runs tr[data-run='{second.id}'] input[type=checkbox]")
    clicks.on("#wb-runs .wb-runs-head button:has-text('Compare')")
    expect(page.locator(".cmphead h1")).to_contain_text("KL coefficient β: 0 against 0.04")
    assert clicks.count == 3
    expect(page.locator(".cmpsettings tbody tr")).to_have_count(1)
    expect(page.locator(".cmpside")).to_have_count(2)
    prompt = page.locator(".cmpselect").input_value()
    for run in (first, second):
        said = record_rows(
            run,
            f"SELECT samples.completion FROM samples JOIN {GROUPS} g ON g.id = group_id WHERE g.prompt_id = ? AND g.mode = 'sampled' AND g.step = (SELECT max(step) FROM steps WHERE mode = 'sampled') ORDER BY sample_index",
            prompt,
        )
        shown = page.locator(f".cmpside[data-run='{run.id}'] pre").all_text_contents()
        assert shown == [text for (text,) in said]
