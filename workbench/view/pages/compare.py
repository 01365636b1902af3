"""Compare: two or more runs over each other. Drawn by static/compare.js from its JSON routes."""

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("compare")
    shell.markup(value=tag("div", id="wb-compare", class_="wb-reader"))
