"""Live and Group: one element that the reader (static/reader.js) mounts on. It knows nothing of Gradio."""

from workbench.view.markup import tag
from workbench.view.pages import shell


def build() -> None:
    """Draws the page."""
    shell.top("live")
    shell.markup(value=tag("div", id="wb-reader"))
