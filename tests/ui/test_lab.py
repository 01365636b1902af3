"""The reward lab in a real browser: every error is explained in words, and nothing typed is lost."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.fakes import write_fake_run
from tests.helpers import wait_until
from tests.ui.reading import texts
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader
from workbench.view.lab.drafts import Drafts, RewardCode, RewardPart

pytestmark = [pytest.mark.ui, pytest.mark.timeout(300)]
RIGHT = "def right(completion: str, answer: str) -> float:\n    return float(answer in completion[-20:])\n"
WORK = RIGHT + "\n\ndef work(completion: str) -> float:\n    return min(completion.count('='), 6) / 6\n"
EDITOR, COMPLAINT = "#wb-lab .cm-content", "#wb-lab .lab-complaint"


@pytest.fixture(scope="module")
def shared(dashboard, tmp_path_factory):
    """One served root with a recorded run and a version; no test that uses it keeps another one: (served, root, run)."""
    root = tmp_path_factory.mktemp("lab")
    run = write_fake_run(root, steps=6, groups=8, samples=6, seed=2, name="earlier")
    Drafts(root).keep(RewardCode(code=RIGHT, parts=[RewardPart(name="right")]), "right")
    return dashboard(root), root, run


@pytest.fixture
def lab(page: Page, shared) -> Page:
    """The lab, opened, with v1 in the editor."""
    served, root, _ = shared
    (Drafts(root).folder / "draft.json").unlink(missing_ok=True)
    open_lab(page, served)
    return page


def open_lab(page: Page, served, **query: object) -> None:
    page.goto(served.url("/lab", **query))
    page.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)


def write(page: Page, text: str) -> None:
    """Replace what is in the editor, as a paste does."""
    page.locator(EDITOR).click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(text)


def test_ctrl_enter_runs_beside_the_version_before_and_a_weight_moves_the_total(lab):
    write(lab, WORK)
    expect(lab.locator("#wb-lab .lab-weight")).to_have_count(2)
    lab.keyboard.press("Control+Enter")
    expect(lab.locator("#wb-lab .lab-checks")).to_contain_text("no errors")
    expect(lab.locator("#wb-lab .lab-result thead")).to_contain_text("r, v1")
    expect(lab.locator("#wb-lab .lab-axis svg.dots")).to_have_count(2)
    expect(lab.locator("#wb-lab .lab-facts")).to_contain_text("Wrong samples pushed up")
    expect(lab.locator("#wb-lab .wb-new-line")).to_have_count(4)
    column = texts(lab.locator("#wb-lab .lab-result thead th")).index("r, v2*") + 1
    total = lab.locator(f"#wb-lab tr[data-sample] td:nth-child({column})").first
    assert float(total.inner_text()) > 1.0
    box = lab.get_by_label("Weight of work")
    box.fill("0")
    box.press("Enter")
    lab.keyboard.press("Control+Enter")
    expect(total).to_have_text("1.00")
    # Another group: by key, by arrow, by its bar.
    group = lab.locator("#wb-lab .lab-group .step")
    lab.locator("#wb-lab h1").click()
    lab.keyboard.press("j")
    expect(group).to_contain_text("group 2 of")
    lab.get_by_role("button", name="Next group").click()
    expect(group).to_contain_text("group 3 of")
    lab.locator("#wb-lab .lab-bars.old .bar1").last.click()
    expect(group).not_to_contain_text("group 3 of")


BAD = {
    "syntax error": ("def f(completion):\n    return (\n", "never closed", 2),
    "missing import": ("import no_such_module\n\n\ndef f(completion):\n    return 1\n", "no module named no_such_module", 1),
    "infinite loop": ("def f(completion):\n    while True:\n        pass\n", "No answer within 2 s", 2),
    "kills itself": ("import os\n\n\ndef f(completion):\n    os.kill(os.getpid(), 9)\n", "(signal SIGKILL)", 4),
}  # fmt: skip


def test_what_cannot_run_is_said_at_its_line_and_stays_in_the_editor(lab, shared):
    for text, says, line in BAD.values():
        write(lab, text)
        lab.keyboard.press("Control+Enter")
        expect(lab.locator(COMPLAINT)).to_contain_text(says, timeout=60_000)
        lab.locator("#wb-lab .cm-lint-marker-error").first.wait_for()
        lab.locator(COMPLAINT).get_by_role("button", name=f"Go to line {line}").click()
        expect(lab.locator("#wb-lab .lab-saved")).to_have_text("saved")
        assert Drafts(shared[1]).draft()["code"] == text
    lab.reload()
    lab.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)
    assert lab.locator(EDITOR).inner_text().split() == text.split()
    write(lab, RIGHT)
    lab.keyboard.press("Control+Enter")
    expect(lab.locator("#wb-lab .lab-checks")).to_contain_text("no errors")
    expect(lab.locator(COMPLAINT)).to_be_hidden()


def test_wrong_values_and_a_printed_megabyte_are_shown_as_text(lab):
    write(
        lab,
        "def f(completion):\n    print('x' * 1_000_000, 'END')\n    return '<img src=x onerror=alert(1)>'\n",
    )
    lab.keyboard.press("Control+Enter")
    expect(lab.locator("#wb-lab .lab-bar h1")).to_have_text("v2* fails on every sample.")
    expect(lab.locator("#wb-lab .reason")).to_have_count(1)  # once, not for each sample
    expect(lab.locator("#wb-lab .reason")).to_contain_text('returned text ("<img src=x')
    expect(lab.locator("#wb-lab .reason")).to_contain_text("It must return a number or None")
    expect(lab.locator("#wb-lab .lab-printed pre")).to_contain_text("END")
    assert lab.locator("#wb-lab .lab-result img").count() == 0


def test_a_pasted_megabyte_stays_usable_and_is_kept(lab, shared):
    text = RIGHT + "# " + "a b " * 2**18 + "\n"
    write(lab, text)
    wait_until(lambda: Drafts(shared[1]).draft()["code"] == text)
    lab.keyboard.press("Control+Enter")
    expect(lab.locator("#wb-lab .lab-checks")).to_contain_text("no errors")


def test_nothing_typed_is_lost_while_the_server_is_away(lab):
    lab.route("**/wb/api/lab/draft", lambda route: route.abort())
    write(lab, WORK + "# mine\n")
    expect(lab.locator("#wb-lab .lab-saved")).to_contain_text("saved in this browser")
    lab.unroute("**/wb/api/lab/draft")
    lab.reload()
    lab.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)
    expect(lab.locator(EDITOR)).to_contain_text("# mine")
    expect(lab.locator("#wb-lab .lab-saved")).to_have_text("saved")


@pytest.mark.slow
def test_versions_are_looked_at_compared_gone_on_from_and_used(page, dashboard, tmp_path):
    write_fake_run(tmp_path, steps=1, groups=2, samples=2, name="earlier")
    Drafts(tmp_path).keep(RewardCode(code=RIGHT, parts=[RewardPart(name="right")]), "right")
    open_lab(page, dashboard(tmp_path))
    write(page, WORK)
    page.get_by_role("button", name="Save v2").click()
    page.get_by_role("button", name="v1 right").click()
    assert "work" not in page.locator(EDITOR).inner_text()
    expect(page.locator("#wb-lab .lab-tools")).to_contain_text(Drafts(tmp_path).version(1).sha[:12])
    page.get_by_role("button", name="Go on from here").click()
    write(page, RIGHT.replace("-20", "-9"))
    page.get_by_label("what v1 had too").check()
    expect(page.locator("#wb-lab .cm-deletedChunk")).to_contain_text("-20")
    assert [version.code for version in Drafts(tmp_path).versions()] == [RIGHT, WORK]
    page.get_by_role("button", name="Use in a new run").click()
    page.wait_for_url("**/new?reward=3")
    expect(page.locator("#wb-lab-versions")).to_contain_text(
        Drafts(tmp_path).version(3).sha[:16], timeout=60_000
    )
    expect(page.locator(".wb-reward-name input").first).to_have_value("v3 · right")


def test_a_catalogue_reward_comes_into_the_code_and_own_cases_are_scored(lab):
    lab.get_by_role("button", name="Start from the catalogue").click()
    lab.get_by_role("button", name="Add format to the code").click()
    expect(lab.locator("#wb-lab .lab-weight")).to_have_count(2)
    expect(lab.locator(EDITOR)).to_contain_text("def format(completion: str, rendered: str)")
    lab.locator("tr[data-sample] .keepcase").first.click()
    lab.locator("[data-key=on-cases]").click()
    lab.get_by_role("button", name="Add a case").click()
    lab.get_by_label("completion of case 2").fill("no idea")
    lab.locator("#lab-run").click()
    expect(lab.locator("tr[data-sample]")).to_have_count(2)
    expect(lab.locator("#wb-lab .lab-checks")).to_contain_text("no errors")
    lab.reload()
    lab.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)
    expect(lab.locator("[data-key=on-cases]")).to_have_text("My cases (2)")


def test_thumbs_against_the_reward_are_listed_and_lead_to_their_group(lab, shared):
    run = shared[2]
    group = list(Reader(run).completions(since=1))[3]
    wrong = next(text for text, right in zip(group["texts"], group["rights"], strict=True) if not right)
    Notes(run).thumb(Visit(group["step"]), group["prompt_id"], wrong, True)
    lab.locator("#lab-run").click()
    thumbs = lab.locator("#wb-lab .lab-thumbs")
    expect(thumbs).to_contain_text("Agrees with 0 of 1 rating")
    thumbs.get_by_role("button", name="Show the other").click()
    thumbs.get_by_role("button", name="you said good").click()
    expect(lab.locator("#wb-lab .lab-group .step")).to_contain_text("group 4 of")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious_and_a_phone_shows_everything(lab, shared, theme):
    lab.goto(shared[0].url("/lab", __theme=theme))
    lab.locator("#wb-lab[data-ready]").wait_for(timeout=60_000)
    lab.locator("#lab-run").click()
    lab.locator("#wb-lab .lab-side").first.wait_for()
    lab.locator("#lab-attack").click()
    lab.locator("#wb-lab [data-trick]").first.wait_for()
    violations = Axe().run(lab).response["violations"]
    found = [entry for entry in violations if entry["impact"] in ("serious", "critical")]
    assert [(entry["id"], [node["html"][:160] for node in entry["nodes"]]) for entry in found] == []
    lab.set_viewport_size({"width": 390, "height": 844})
    assert lab.evaluate("document.documentElement.scrollWidth") == 390
