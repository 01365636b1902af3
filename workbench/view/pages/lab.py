"""Reward lab: one element that static/lab/ draws on. It asks the routes of view/lab and knows nothing of Gradio."""

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("lab")
    shell.markup(value=tag("div", id="wb-lab", class_="wb wb-reader"))
