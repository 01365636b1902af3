"""Live, Group, Prompt, Search and Try it: one element that the reader (reader/reader.js) mounts on. It knows nothing of Gradio."""

import gradio as gr

from workbench.view.common import shell
from workbench.view.common.store import Store


def build(store: Store, blocks: gr.Blocks) -> None:
    """Draws the page; its data come from the JSON routes."""
    shell.mount("wb-reader", "reader/reader")
