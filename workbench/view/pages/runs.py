"""Runs: every run of this folder with its state, curve and verdict. The rows are drawn by static/runs.js from the same JSON route."""

import gradio as gr

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("runs")
    gr.HTML(str(tag("div", id="wb-runs")), elem_classes=["wb", "wb-bare"], apply_default_css=False)
