"""Every page and view of the dashboard leaves the browser's console empty: no error of ours, of the framework, or of a missing file."""

import pytest
from playwright.sync_api import Browser, expect

from tests.fakes import write_fake_run
from tests.ui.conftest import Dashboard
from workbench.view.server.pages import PAGES

pytestmark = [pytest.mark.ui, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def served(dashboard, tmp_path_factory):
    root = tmp_path_factory.mktemp("console")
    runs = [write_fake_run(root, steps=6, groups=4, samples=4, eval_steps=3, seed=seed) for seed in (1, 2)]
    return dashboard(root), [run.id for run in runs]


def addresses(served: Dashboard, runs: list[str]) -> list[str]:
    """One address for each page, and one more for each of its views."""
    found = []
    for page in PAGES:
        views = [view.name for view in page.views] or [""]
        found += [served.url(page.path, run=runs[0], view=view) for view in views]
    return [f"{address}&run={runs[1]}" if "/compare" in address else address for address in found]


@pytest.mark.parametrize(
    ("theme", "width", "height"),
    [
        ("light", 1440, 900),
        ("dark", 390, 844),
        ("dark", 1440, 900),
        ("light", 390, 844),
    ],
)
@pytest.mark.slow
def test_every_page_leaves_the_console_empty(browser: Browser, served, theme, width, height) -> None:
    dashboard, runs = served
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    troubles: list[str] = []
    page.on(
        "console", lambda message: troubles.append(f"{message.type}: {message.text} ({message.location})")
    )
    page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
    page.on("response", lambda got: got.status >= 400 and troubles.append(f"{got.status}: {got.url}"))
    for address in addresses(dashboard, runs):
        page.goto(address)
        drawn = page.locator("[data-module] > :not([role=status]), .wb-field").locator("visible=true")
        expect(drawn.first).to_be_visible(timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
    context.close()
    assert troubles == []
