"""Theory: where training must end by the published formulas, and where it does. Drawn by theory.js from one JSON route."""

import gradio as gr

from workbench.view.common import shell
from workbench.view.common.store import Store


def build(store: Store, blocks: gr.Blocks) -> None:
    """Draws the page; its data come from the JSON routes."""
    shell.mount("wb-theory", "learn/theory", "wb-reader")
