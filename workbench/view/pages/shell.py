"""The frame around every page: what stands in the head, and the top bar."""

from typing import Literal

import gradio as gr
from gradio.themes.base import Base
from markupsafe import Markup

from workbench.view.markup import tag

PageName = Literal["live", "lab", "new", "runs", "compare", "theory"]
STATIC = "/wb/static/"

# Gradio paints its own ground for the first frame, and no custom head of ours may block it: sheets first,
# module last.
HEAD = (
    f'<link rel="stylesheet" href="{STATIC}wb.css"><link rel="stylesheet" href="{STATIC}pages.css">'
    f'<link rel="stylesheet" href="{STATIC}lab/lab.css"><link rel="stylesheet" href="{STATIC}theory.css">'
    f'<link rel="icon" href="{STATIC}icon.svg" type="image/svg+xml">'
    f'<script type="module" src="{STATIC}boot.js"></script>'
)
READ_ONLY = '<meta name="wb-read-only" content="yes">'
"""Tells the pages to offer nothing that would be refused."""


def theme() -> Base:
    """Gradio's base theme without a hue or a web font of its own; pages.css does the rest from our tokens."""
    return Base(
        primary_hue="teal",
        secondary_hue="gray",
        neutral_hue="gray",
        font=["IBM Plex Sans", "system-ui", "sans-serif"],
        font_mono=["IBM Plex Mono", "ui-monospace", "monospace"],
    )


def brand() -> Markup:
    """The mark (two answers above the mean, two below) and the name."""
    dots = [
        tag("circle", cx=x, cy=y, r=2.2 if above else 1.7, class_="up" if above else "down")
        for x, y, above in ((4, 13, 0), (8, 13, 0), (12, 5, 1), (16, 5, 1))
    ]
    mark = tag(
        "svg",
        *dots,
        tag("line", x1=1, x2=19, y1=9.2, y2=9.2),
        width=20,
        height=20,
        viewBox="0 0 20 20",
        aria_hidden="true",
    )
    return tag("a", mark, "GRPO workbench", class_="brand", href="/")


def top_bar(page: PageName) -> Markup:
    """The bar on top of every page. The reader takes over the links that carry data-view."""
    pages = tag("nav", _links(page), class_="nav", aria_label="Pages")
    lines = [tag("line", x1=3, x2=17, y1=y, y2=y) for y in (5.5, 10, 14.5)]
    button = tag(
        "summary",
        tag("svg", lines, width=20, height=20, aria_hidden="true"),
        class_="btn",
        aria_label="Pages",
    )
    menu = tag("details", button, tag("nav", _links(page)), class_="wb-menu mob")
    space = tag("span", class_="sp")
    return tag("header", brand(), pages, space, tag("span", id="wb-top-end"), menu, class_="top", id="wb-top")


def _links(page: PageName) -> list[Markup]:
    def link(text: str, href: str, here: bool, only: str = "", **data: str) -> Markup:
        here_now = "page" if here else None
        return tag("a", text, href=href, class_="on" if here else only, aria_current=here_now, **data)

    return [
        link("Live", "/", page == "live", data_view="live"),
        link("Group", "/?view=group", False, data_view="group"),
        link("Prompt", "/?view=prompt", False, data_view="prompt"),
        link("Search", "/?view=search", False, data_view="search", only="mob"),
        link("Try it", "/?view=try", False, data_view="try", only="mob"),
        tag("span", class_="sep"),
        link("Reward lab", "/lab", page == "lab", data_page="lab"),
        link("New run", "/new", page == "new", data_page="new"),
        link("Runs", "/runs", page in ("runs", "compare"), data_page="runs"),
        link("Theory", "/theory", page == "theory", data_page="theory"),
    ]


def markup(elem_id: str | None = None, value: Markup | str = "", css: str = "") -> gr.HTML:
    """A place for markup of ours, without Gradio's padding and type. What goes in must come from `tag`."""
    classes = ["wb", "wb-bare", *([css] if css else [])]
    return gr.HTML(str(value), elem_id=elem_id, elem_classes=classes, apply_default_css=False)


def top(page: PageName) -> None:
    """Draws the top bar in place of Gradio's own."""
    gr.Navbar(visible=False)  # type: ignore[attr-defined]
    markup(value=top_bar(page))
