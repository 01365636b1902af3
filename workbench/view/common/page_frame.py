"""The frame around every page: its head, its top bar, and places for our own markup and scripts."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import gradio as gr
from fastapi import APIRouter
from gradio.themes.base import Base
from markupsafe import Markup

from workbench.view.common.markup import tag
from workbench.view.common.run_store import RunStore

STATIC = "/wb/static/"
SHEETS = ("common/wb.css", "common/pages.css")
"""Style sheets of every page."""


class View(NamedTuple):
    """A view of the reader with a link of its own in the top bar: `/?view=<name>`."""

    name: str
    title: str
    phone_only: bool = False


class Page(NamedTuple):
    """One page of the dashboard: a row of the table in view/server/pages.py."""

    name: str
    title: str
    path: str
    build: Callable[[RunStore, gr.Blocks], None]
    """Draws everything below the top bar, inside the page's own Gradio route."""
    routes: tuple[Callable[[RunStore], APIRouter], ...]
    """Makes the JSON routes that the page calls, below /wb/api."""
    runs_code: bool = False
    """Reward code runs from here: left out of a read-only dashboard."""
    views: tuple[View, ...] = ()
    """Views of the reader on this page, each with a link; the first one is the page itself."""
    below: str | None = None
    """Name of the page whose link stands for this one in the top bar."""
    styles: tuple[str, ...] = ()
    """Style sheets of its own, relative to view/."""


READ_ONLY = '<meta name="wb-read-only" content="yes">'
"""In the head of a read-only dashboard: the scripts leave out controls that the guard would refuse."""


def head(pages: Iterable[Page]) -> str:
    """The markup in every page's head: style sheets first, so that the first frame has our colours; the module does not block it."""
    sheets = [*SHEETS, *(sheet for page in pages for sheet in page.styles)]
    return (
        "".join(f'<link rel="stylesheet" href="{STATIC}{sheet}">' for sheet in sheets)
        + f'<link rel="icon" href="{STATIC}common/icon.svg" type="image/svg+xml">'
        + f'<script type="module" src="{STATIC}server/boot.js"></script>'
    )


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
    """The logo (two samples above the group mean, two below) and the name."""
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


def top_bar(page: Page, pages: Sequence[Page]) -> Markup:
    """The bar on top of every page. The reader takes over the links that carry data-view."""
    links = _links(page, pages)
    wide = tag("nav", links, class_="nav", aria_label="Pages")
    lines = [tag("line", x1=3, x2=17, y1=y, y2=y) for y in (5.5, 10, 14.5)]
    button = tag(
        "summary",
        tag("svg", lines, width=20, height=20, aria_hidden="true"),
        class_="btn",
        aria_label="Pages",
    )
    menu = tag("details", button, tag("nav", links), class_="wb-menu mob")
    space = tag("span", class_="sp")
    return tag("header", brand(), wide, space, tag("span", id="wb-top-end"), menu, class_="top", id="wb-top")


def _links(here: Page, pages: Sequence[Page]) -> list[Markup]:
    links: list[Markup] = []
    for page in pages:
        for view in page.views:
            first = view is page.views[0]
            href = page.path if first else f"{page.path}?view={view.name}"
            links.append(
                _link(view.title, href, first and page == here, view.phone_only, data_view=view.name)
            )
        if page.views:
            links.append(tag("span", class_="sep"))
        elif page.below is None:
            links.append(
                _link(page.title, page.path, page.name in (here.name, here.below), data_page=page.name)
            )
    return links


def _link(text: str, href: str, here: bool, phone_only: bool = False, **data: str) -> Markup:
    css = "on" if here else "mob" if phone_only else ""
    return tag("a", text, href=href, class_=css, aria_current="page" if here else None, **data)


def markup(elem_id: str | None = None, value: Markup | str = "", css: str = "") -> gr.HTML:
    """A component that shows our own markup without Gradio's padding and fonts. `value` must come from `tag`."""
    classes = ["wb", "wb-bare", *([css] if css else [])]
    return gr.HTML(str(value), elem_id=elem_id, elem_classes=classes, apply_default_css=False)


def mount(elem_id: str, module: str, css: str | None = None) -> None:
    """An element for a JavaScript module (`folder/name`, relative to view/) to mount on; see server/boot.js."""
    markup(value=tag("div", id=elem_id, class_=css, data_module=module))


def script_page(elem_id: str, module: str, css: str | None = None) -> Callable[[RunStore, gr.Blocks], None]:
    """`Page.build` of a page that one JavaScript module draws. The module takes its data from the JSON routes and knows nothing of
    Gradio."""
    return lambda store, blocks: mount(elem_id, module, css)


def top(page: Page, pages: Sequence[Page]) -> None:
    """Draws the top bar in place of Gradio's own."""
    gr.Navbar(visible=False)  # type: ignore[attr-defined]
    markup(value=top_bar(page, pages))
