"""Reward lab: one element that lab.js draws on. It asks the routes of this folder and knows nothing of Gradio."""

import gradio as gr

from workbench.view.common import shell
from workbench.view.common.store import Store


def build(store: Store, blocks: gr.Blocks) -> None:
    """Draws the page; its data come from the JSON routes."""
    shell.mount("wb-lab", "lab/lab", "wb wb-reader")
