"""axe finds nothing serious in what is ours, in either theme and on a phone. What fails inside Gradio's own elements is
listed by rule in docs/accessibility.md, and nothing else may fail there."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.fakes import write_fake_run
from tests.ui.reading import open_reader
from workbench.launch import probe_client

pytestmark = pytest.mark.ui
OURS = "#wb-reader, #wb-top, .wb-bare"
SERIOUS = {"serious", "critical"}
DOCS = Path(__file__).parents[2] / "docs" / "accessibility.md"
VIEWS = {
    "live": {},
    "group": {"view": "group", "sample": 1, "tok": 3},
    "prompt": {"view": "prompt"},
    "search": {"view": "search", "q": "check"},
    "try": {"view": "try"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_fake_run(
        tmp_path_factory.mktemp("axe"), steps=12, groups=6, samples=8, failures=0.05, name="seen"
    )


@pytest.fixture(scope="module")
def served(dashboard, run):
    return dashboard(run.path.parent)


def serious(page, within: str | None) -> dict[str, list[str]]:
    """Rules broken, each with the first elements that break it."""
    context = (
        {"include": [[one] for one in within.split(", ") if page.locator(one).count()]} if within else None
    )
    found = Axe().run(page, context=context, options={"resultTypes": ["violations"]}).response["violations"]
    return {
        one["id"]: [f"{node['target']} {node['html'][:120]}" for node in one["nodes"][:4]]
        for one in found
        if one["impact"] in SERIOUS
    }


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_nothing_serious_in_a_view(page, served, run, view, theme):
    open_view(page, served, run, view, theme)
    assert serious(page, OURS) == {}
    if theme == "light":
        page.set_viewport_size({"width": 390, "height": 844})
        assert serious(page, OURS) == {}


def open_view(page, served, run, view, theme):
    cursor = VIEWS[view]
    if view == "group":
        [group] = [row for row in _groups(run) if row["k"] == 0]
        cursor = {**cursor, "step": 9, "prompt": group["prompt_id"]}
        side = {"text": "7", "cut": 0, "example": "", "token": 7, "right": 1, "rewards": [1.0, 0.0, 0.0]}
        probe_client.save_branch(run, {
            "step": 9, "k": 0, "kind": "train", "mode": None, "prompt_id": "", "sample": 1, "tok": 3, "n": 3, "advantage": 0.5, "reward": 1.0,
            "reward_std": 0.5, "length": 20, "policy_step": 10, "sides": [{**side, "token": None, "text": ""}, side, side],
        })  # fmt: skip
    if view == "try":
        page.goto(served.url(run=run.id, view="try", __theme=theme))
        page.locator(".trycolumn").first.wait_for()
    else:
        open_reader(page, served, run, __theme=theme, **cursor)
    if view == "group":
        page.keyboard.press("f")
        page.locator(".tree .branch").first.wait_for()
        page.locator(".tokenvalue .choice").first.wait_for()


def _groups(run):
    from workbench.record.reader import Reader  # noqa: PLC0415 (one use)

    return Reader(run).groups(9)


@pytest.mark.parametrize(("path", "ready"), [("/new", "#wb-form"), ("/runs", "#wb-runs tr")])
def test_what_fails_on_a_whole_page_is_gradios_and_listed(page, served, run, path, ready):
    page.goto(served.url(path))
    page.locator(ready).first.wait_for(state="attached")
    assert serious(page, OURS) == {}
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", DOCS.read_text(), re.M))
    assert set(serious(page, None)) <= listed
