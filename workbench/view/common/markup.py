"""Safe HTML: elements are calls, and every value in them is escaped.

`tag("p", "<b>", class_="i2")` gives `<p class="i2">&lt;b&gt;</p>`. Only markup that `tag` made passes through unescaped, so text of a
model, a data set or a log always becomes a text node.
"""

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

Child = Markup | str | float | Iterable["Child"] | None
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
# gr.HTML reads its value as a template literal and as Handlebars: as character references these are inert there too.
_TEMPLATE = str.maketrans(
    {"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;", "\\": "&#92;", "\0": "�"}
)


def text(value: object) -> Markup:
    """One escaped text node."""
    return Markup(str(escape(value)).translate(_TEMPLATE))  # escaped in the same line


def tag(name: str, *children: Child, **attributes: Any) -> Markup:
    """An element. `class_` means class, `_` in other names means `-`; None and False leave an attribute or
    child out, True makes it bare."""
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{text(value)}"')
    opening = f"<{name}{''.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Several children, one after the other."""
    return Markup("").join(_child(child) for child in children)


def _child(child: Child) -> Markup:
    if child is None or child is False:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return text(child)
    return join(child)
