"""A run as one file: opened from disk in a real browser without a network, it shows what the dashboard shows."""

import json
import re

import pytest
from playwright.sync_api import Browser, expect

from tests.fakes import write_fake_run
from workbench import cli
from workbench.record.reader import Reader
from workbench.view.reader import embed

pytestmark = pytest.mark.ui


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_fake_run(
        tmp_path_factory.mktemp("export"), steps=9, total=9, groups=4, samples=5, seed=2, name="chain-s2"
    )


@pytest.fixture
def opened(browser: Browser, run, tmp_path):
    """The exported file in a browser that is cut off; every request and every complaint of a script is kept."""
    target = tmp_path / "run.html"
    assert cli.main(["export", str(run.path), "--html", str(target), "--max-mb", "1.4"]) == 0
    context = browser.new_context(
        offline=True, viewport={"width": 1440, "height": 900}, reduced_motion="reduce"
    )
    page = context.new_page()
    troubles: list[str] = []
    page.on(
        "request", lambda sent: sent.url.startswith(("data:", target.as_uri())) or troubles.append(sent.url)
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
    page.goto(target.as_uri())
    page.locator(".groups table").wait_for()
    yield page
    context.close()
    assert troubles == []


def held(page) -> list[int]:
    """The steps that the page says it holds."""
    found = re.search(r"steps with their groups \(([0-9, ]+)\)", page.locator(".excerpt").inner_text())
    return [int(step) for step in found[1].split(",")]


def test_it_holds_steps_spread_over_the_run_and_the_cursor_stays_among_them(opened, run):
    steps = held(opened)
    assert {0, 8} <= set(steps) and len(steps) < 9
    assert opened.evaluate("document.fonts.check('13px \"IBM Plex Sans\"')")
    opened.keyboard.press("h")
    expect(opened.locator(".groups h2")).to_contain_text(f"Step {steps[-2]}:")
    opened.keyboard.press("Enter")
    row = Reader(run).groups(steps[-2])[0]
    expect(opened.locator(".viewgroup h1")).to_have_text(row["question"])
    expect(opened.locator(".keylist")).to_contain_text("pick a sample")
    for idle in ("branch", "what if", "rank", "good, bad"):
        expect(opened.locator(".keylist")).not_to_contain_text(idle)
    opened.keyboard.press("?")
    shown = opened.locator("dialog[open] dt").all_inner_texts()
    assert not {"a", "b", "g x", "r", "w"} & {" ".join(key.split()) for key in shown} and len(shown) > 8
    opened.keyboard.press("Escape")
    opened.keyboard.press("f")
    expect(opened.locator(".tree .branch").first).to_be_visible()
    opened.keyboard.press("p")
    expect(opened.locator(".riverpanel svg").first).to_be_visible()


def test_a_page_keeps_to_its_size_and_says_when_it_holds_everything(run):
    whole = embed.run_page(run)
    assert whole.steps == list(range(9)) and "all 9 steps" in whole.words
    small = embed.run_page(run, len(whole.html) - 1000)
    assert len(small.html) <= len(whole.html) - 1000 and len(small.steps) < 9
    one = embed.run_page(run, len(embed.document(embed.responses(run, {}), {}, fonts=True)) + 60_000)
    [step] = one.steps  # not even one step fits whole: it holds some of its groups
    found = json.loads(re.search(r'id="responses">(.*?)</script>', one.html)[1])
    assert 0 < len(found[f"runs/{run.id}/steps/{step}"]["groups"]) < 4


def test_what_is_not_in_the_page_is_a_sentence(run, capsys):
    assert cli.main(["export", str(run.path)]) == 2
    assert "--html FILE" in capsys.readouterr().err
