"""The table of pages. A new page is a folder with its Python and its JavaScript, and a row here."""

import gradio as gr

from workbench.view.common import shell
from workbench.view.common.shell import Page, View
from workbench.view.common.store import Store
from workbench.view.compare import page as compare
from workbench.view.lab import page as lab
from workbench.view.learn import page as learn
from workbench.view.live import page as live
from workbench.view.new_run import page as new_run
from workbench.view.runs import page as runs

PAGES: tuple[Page, ...] = (
    Page(
        "live",
        "Live",
        "/",
        live.build,
        views=(
            View("live", "Live"),
            View("group", "Group"),
            View("prompt", "Prompt"),
            View("search", "Search", phone_only=True),
            View("try", "Try it", phone_only=True),
        ),
    ),
    Page("lab", "Reward lab", "/lab", lab.build, runs_code=True, styles=("lab/lab.css",)),
    Page("new", "New run", "/new", new_run.build, runs_code=True),
    Page("runs", "Runs", "/runs", runs.build),
    Page("compare", "Compare", "/compare", compare.build, below="runs"),
    Page("theory", "Theory", "/theory", learn.build, styles=("learn/theory.css",)),
)


def build(store: Store, read_only: bool = False) -> gr.Blocks:
    """All pages as one Gradio app; with `read_only` without those on which code is run."""
    first, *others = PAGES
    app = gr.Blocks(title="GRPO workbench", analytics_enabled=False, fill_width=True)
    with app:
        _draw(first, store, app)
    for page in others:
        if not (read_only and page.runs_code):
            with app.route(page.title, page.path) as blocks:
                _draw(page, store, blocks)
    return app


def _draw(page: Page, store: Store, blocks: gr.Blocks) -> None:
    shell.top(page, PAGES)
    page.build(store, blocks)
