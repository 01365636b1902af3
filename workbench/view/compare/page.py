"""Compare: two or more runs over each other, drawn by compare.js from its JSON routes."""

import gradio as gr

from workbench.view.common import shell
from workbench.view.common.store import Store


def build(store: Store, blocks: gr.Blocks) -> None:
    """Draws the page; its data come from the JSON routes."""
    shell.mount("wb-compare", "compare/compare", "wb-reader")
