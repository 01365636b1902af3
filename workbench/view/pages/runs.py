"""Runs: every run of this folder with its state, curve and verdict. The rows are drawn by static/runs.js
from the same JSON route."""

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("runs")
    shell.markup(value=tag("div", id="wb-runs", class_="wb-reader"))
