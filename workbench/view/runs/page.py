"""Runs: every run of this folder with its state, curve and verdict. Drawn by runs.js from one JSON route."""

import gradio as gr

from workbench.view.common import shell
from workbench.view.common.store import Store


def build(store: Store, blocks: gr.Blocks) -> None:
    """Draws the page; its data come from the JSON routes."""
    shell.mount("wb-runs", "runs/runs", "wb-reader")
