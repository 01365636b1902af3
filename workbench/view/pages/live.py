"""Live and Group: one element that the reader (static/reader.js) mounts on. It knows nothing of Gradio."""

import gradio as gr

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("live")
    gr.HTML(str(tag("div", id="wb-reader")), elem_classes=["wb", "wb-bare"], apply_default_css=False)
