"""What the reader's tests share: a page opened at a cursor, figures read from it, and queries of the record."""

import sqlite3
from typing import Any

from playwright.sync_api import Locator, Page

from tests.ui.conftest import Dashboard
from workbench.record.folder import RunFolder

MINUS = "−"
GROUPS = """(SELECT steps.step, steps.kind, steps.mode, groups.*, question, answer FROM groups
  JOIN steps ON steps.id = groups.step_id AND steps.current JOIN prompts USING (prompt_id))"""
"""The record's groups, each with its step and its prompt."""


def open_reader(page: Page, served: Dashboard, run: RunFolder, **cursor: object) -> None:
    """Open the page at a cursor and wait until its view is drawn."""
    page.goto(served.url(run=run.id, **cursor))
    page.wait_for_selector("#wb-reader[data-view]", timeout=60_000)
    view = {
        "group": ".hero",
        "prompt": ".riverpanel svg",
        "search": ".hits li, .viewsearch h1:text('No samples')",
    }.get(str(cursor.get("view")), ".groups table, .startup")
    page.locator(view).locator("visible=true").first.wait_for()


def record_rows(run: RunFolder, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows of the run's record, read directly from the database."""
    with sqlite3.connect(f"file:{run.db_path}?mode=ro", uri=True) as database:
        return database.execute(sql, values).fetchall()


def number(text: str) -> float:
    """A figure as it stands on screen: real minus, percent, leading dot."""
    cleaned = text.replace(MINUS, "-").replace("+", "").strip()
    return float(cleaned.removesuffix("%")) / 100 if cleaned.endswith("%") else float(cleaned)


def texts(found: Locator) -> list[str]:
    """The text of every element, trimmed."""
    return [" ".join(text.split()) for text in found.all_text_contents()]


def query(page: Page) -> dict[str, str]:
    """The page's cursor as its address says it."""
    return dict(page.evaluate("Object.fromEntries(new URLSearchParams(location.search))"))
