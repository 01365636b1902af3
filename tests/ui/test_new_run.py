"""New run in a real browser: checked while one types, nothing lost, nothing unexplained."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.fakes import write_fake_run
from tests.helpers import wait_until

pytestmark = pytest.mark.ui
PAYLOAD = "<img src=x onerror=document.title='owned'>${document.title='owned'}"


@pytest.fixture(scope="module")
def served(dashboard, tmp_path_factory):
    return dashboard(tmp_path_factory.mktemp("new-run"))


def open_form(page: Page, served, **query: object) -> None:
    """The page, once its first check is through."""
    page.goto(served.url("/new", **query))
    page.locator("#wb-expect .wb-panel").first.wait_for(timeout=60_000)


def field(page: Page, name: str):
    return page.locator(f"#f-{name} input")


def test_a_first_visit_shows_the_embedded_preset_and_what_will_happen(page, served):
    page.goto(served.url("/"))
    expect(page.locator("#wb-headline h1")).to_have_text(
        "16 prompts × 12 samples = 192 samples per update. 50 updates take about 60 seconds here.",
        timeout=60_000,
    )
    assert page.url.endswith("/new")
    expect(page.get_by_role("button", name="Start 50 steps")).to_be_enabled()
    expect(field(page, "learning_rate")).to_have_value("0.001")
    expect(page.locator("#wb-cards")).to_contain_text("336,480 parameters")
    assert "token" not in page.url


def test_a_wrong_value_is_told_beside_its_field_and_beside_start_until_it_is_right(page, served):
    open_form(page, served)
    field(page, "beta").fill("-1")
    field(page, "learning_rate").fill("nan")
    beside = page.locator("#f-beta .wb-problem")
    expect(beside).to_contain_text("β is the weight of a penalty and cannot be negative")
    expect(page.locator("#f-learning_rate .wb-problem")).to_contain_text("finite")
    expect(page.locator("#wb-problems li")).to_have_count(2)
    expect(page.locator("#wb-headline")).to_contain_text("2 settings need a change")
    assert field(page, "beta").get_attribute("aria-invalid") == "true"
    field(page, "beta").fill("0.02")
    field(page, "learning_rate").fill("1e-4")
    expect(beside).to_have_count(0)
    expect(page.locator("#wb-problems li")).to_have_count(0)
    expect(page.locator("#wb-headline")).to_contain_text("192 samples")
    expect(page.locator("#wb-about summary")).to_have_text("2 settings changed")


def test_start_with_a_wrong_value_starts_nothing_and_loses_nothing(page, dashboard, tmp_path):
    open_form(page, dashboard(tmp_path))
    page.locator("#wb-all > button").click()
    field(page, "run_name").fill("kept")
    field(page, "steps").fill("none at all")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#f-steps .wb-problem")).to_be_visible()
    assert page.url.endswith("/new") and not list(tmp_path.glob("2*"))
    expect(field(page, "steps")).to_have_value("none at all")
    expect(field(page, "run_name")).to_have_value("kept")


@pytest.mark.slow
def test_what_only_start_can_see_is_told_at_the_field_too(page, dashboard, tmp_path):
    """The data file is read at Start."""
    broken = tmp_path / "rows.jsonl"
    broken.write_text('{"question": "1+1", "answer": "2"}\n{half\n')
    open_form(page, dashboard(tmp_path / "runs"))
    page.locator("#f-task input").click()
    page.get_by_role("option", name="Your own prompts").click()
    field(page, "data").fill(str(broken))
    expect(page.locator("#wb-problems li")).to_have_count(0)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#f-data .wb-problem")).to_contain_text("rows.jsonl", timeout=60_000)
    assert not list((tmp_path / "runs").glob("2*"))


def test_a_preset_fills_the_form_and_another_model_is_asked_for(page, served):
    open_form(page, served)
    page.get_by_text("GRPO as in DeepSeekMath").click()
    expect(field(page, "beta")).to_have_value("0.04")
    expect(page.locator("#f-num_generations input[type=number]")).to_have_value("64")
    expect(page.locator(".wb-slider-plot")).to_contain_text("at G = 64")
    page.get_by_text("Another model").click()
    expect(page.locator("#f-model .wb-problem")).to_contain_text("Hugging Face id")
    field(page, "model").fill("/no/such/folder")
    expect(page.locator("#f-model .wb-problem")).to_contain_text("no such folder")
    page.get_by_text("Embedded model, on this CPU").click()
    expect(page.locator("#f-model")).to_be_hidden()
    expect(page.locator("#wb-headline")).to_contain_text("192 samples")


def test_rewards_come_and_go_and_one_must_count(page, served):
    open_form(page, served)
    rows = page.locator(".wb-reward")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Add a reward").click()
    expect(rows).to_have_count(3)
    page.get_by_role("button", name="Remove").first.click()
    expect(rows).to_have_count(2)
    expect(page.locator("#f-rewards .wb-problem")).to_contain_text("Switch one on")


def test_every_label_explains_itself_on_hover_and_on_focus(page, served):
    open_form(page, served)
    page.locator("#f-temperature [data-testid=block-info]").hover()
    tip = page.get_by_role("tooltip").locator("visible=true")
    expect(tip).to_contain_text("Sampling temperature")
    expect(tip).to_contain_text("Can be changed while the run trains")
    page.keyboard.press("Escape")
    expect(tip).to_have_count(0)
    field(page, "prompts_per_step").focus()
    page.keyboard.press("Tab")
    expect(tip).to_contain_text("Peak learning rate")


def test_text_that_was_typed_is_text(page, served):
    open_form(page, served)
    page.get_by_text("Another model").click()
    field(page, "model").fill(f"/tmp/{PAYLOAD}")
    expect(page.locator("#f-model .wb-problem")).to_contain_text("<img src=x onerror=")
    expect(page.locator("#wb-problems")).to_contain_text("${document.title='owned'}")
    assert page.title() != "owned" and page.locator("#wb-problems img, #f-model img").count() == 0


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_prompts_are_previewed_as_the_model_reads_them(page, dashboard, tmp_path):
    data = tmp_path / "own.jsonl"
    rows = [{"question": f"{PAYLOAD} {i}", "answer": str(i)} for i in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)))
    root = tmp_path / "runs"
    open_form(page, dashboard(root))
    page.locator("#f-task input").click()
    page.get_by_role("option", name="Your own prompts").click()
    field(page, "data").fill(str(data))
    page.get_by_role("button", name="Preview 5 prompts").click()
    shown = page.locator(".wb-preview li")
    expect(shown).to_have_count(5, timeout=200_000)
    expect(shown.first.locator("pre")).to_contain_text(f"<|user|>{PAYLOAD}")
    expect(page.locator(".wb-preview")).to_contain_text("36 prompts to train on, 4 held out")
    assert page.title() != "owned" and page.locator(".wb-preview img").count() == 0
    page.wait_for_function("document.querySelector('#wb-previewed .wb-preview')")
    wait_until(lambda: not list(root.glob("2*")), what="who answered has gone and left nothing")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_a_phone_shows_everything_and_nothing_overflows(page, served, theme):
    page.set_viewport_size({"width": 390, "height": 844})
    open_form(page, served, __theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#wb-all > button").click()
    page.locator("#f-nproc").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator(".wb-menu summary").click()
    page.locator(".wb-menu").get_by_role("link", name="Runs").click()
    page.wait_for_url("**/runs")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious_on_new_run(page, served, theme):
    open_form(page, served, __theme=theme)
    found = [
        entry
        for entry in Axe().run(page).response["violations"]
        if entry["impact"] in ("serious", "critical")
    ]
    assert [(entry["id"], [node["html"][:120] for node in entry["nodes"]]) for entry in found] == []


@pytest.mark.slow
def test_earlier_runs_show_what_to_expect(page, dashboard, tmp_path):
    write_fake_run(tmp_path, steps=50, eval_steps=10, seed=3)
    open_form(page, dashboard(tmp_path))
    expect(page.locator("#wb-expect")).to_contain_text(
        "Held-out accuracy of an earlier run with these settings"
    )
    expect(page.locator("#wb-expect .wb-plot")).to_contain_text("seed 3")
    expect(page.locator("#wb-expect")).to_contain_text("Samples grow from")
