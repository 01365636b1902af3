"""Theory: where training must end by the published formulas, and where it does. Drawn by static/theory.js from one JSON route."""

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("theory")
    shell.markup(value=tag("div", id="wb-theory", class_="wb-reader"))
