"""The table of pages. A new page is a folder with its Python and its JavaScript, and a row here."""

import gradio as gr

from workbench.view.ask import routes as ask
from workbench.view.common import page_frame
from workbench.view.common.page_frame import Page, View
from workbench.view.common.run_store import RunStore
from workbench.view.compare import routes as compare
from workbench.view.group import routes as group
from workbench.view.lab import routes as lab
from workbench.view.learn import routes as learn
from workbench.view.live import routes as live
from workbench.view.new_run import page as new_run
from workbench.view.new_run import routes as new_run_routes
from workbench.view.prompt import routes as prompt
from workbench.view.runs import routes as runs
from workbench.view.search import routes as search
from workbench.view.whatif import routes as whatif

PAGES: tuple[Page, ...] = (
    Page(
        "live",
        "Live",
        "/",
        page_frame.script_page("wb-reader", "reader/reader"),
        (live.router, group.router, prompt.router, search.router, whatif.router, ask.router),
        views=(
            View("live", "Live"),
            View("group", "Group"),
            View("prompt", "Prompt"),
            View("search", "Search", phone_only=True),
            View("try", "Try it", phone_only=True),
        ),
    ),
    Page(
        "lab",
        "Reward lab",
        "/lab",
        page_frame.script_page("wb-lab", "lab/lab", "wb wb-reader"),
        (lab.router,),
        runs_code=True,
        styles=("lab/lab.css",),
    ),
    Page("new", "New run", "/new", new_run.build, (new_run_routes.router,), runs_code=True),
    Page(
        "runs", "Runs", "/runs", page_frame.script_page("wb-runs", "runs/runs", "wb-reader"), (runs.router,)
    ),
    Page(
        "compare",
        "Compare",
        "/compare",
        page_frame.script_page("wb-compare", "compare/compare", "wb-reader"),
        (compare.router,),
        below="runs",
    ),
    Page(
        "theory",
        "Theory",
        "/theory",
        page_frame.script_page("wb-theory", "learn/theory", "wb-reader"),
        (learn.router,),
        styles=("learn/theory.css",),
    ),
)


def build(store: RunStore, read_only: bool = False) -> gr.Blocks:
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


def _draw(page: Page, store: RunStore, blocks: gr.Blocks) -> None:
    page_frame.top(page, PAGES)
    page.build(store, blocks)
