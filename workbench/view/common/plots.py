"""Small plots as markup, for pages that Python draws: a line plot, a stacked bar, a sparkline. Colours are classes of pages.css.

Lines are drawn in an SVG box that stretches with the page; labels are HTML over it, so they neither stretch nor hide from screen
readers.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from workbench.view.common.markup import tag

LINE_HEIGHT = 14
"""Pixels between two labels at line ends."""


class Curve(NamedTuple):
    """One line; `css` is the class that colours it. The label stands at its right end."""

    points: Sequence[tuple[float, float]]
    css: str = ""
    label: str = ""
    dots: bool = False


class Axis(NamedTuple):
    """A range with its ticks: (value, label)."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the range."""
        return 100 * (value - self.low) / (self.high - self.low)


def plot(
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    height: int,
    alt: str,
    mark: tuple[float, float, str] | None = None,
) -> Markup:
    """A line plot `height` pixels high. `mark` is (x, y, label) of one point, with a rule down to the axis."""
    rules = [
        tag(
            "line",
            x1=0,
            x2=100,
            y1=100 - y.at(value),
            y2=100 - y.at(value),
            class_="axis" if value == y.low else "rule",
        )
        for value, _ in y.ticks
    ]
    lines = [
        tag(
            "polyline",
            points=" ".join(f"{x.at(a):.2f},{100 - y.at(b):.2f}" for a, b in curve.points),
            class_=curve.css,
        )
        for curve in curves
    ]
    if mark:
        lines.append(
            tag("line", x1=x.at(mark[0]), x2=x.at(mark[0]), y1=100 - y.at(mark[1]), y2=100, class_="drop")
        )
    drawing = tag("svg", rules, lines, viewBox="0 0 100 100", preserveAspectRatio="none", aria_hidden="true")
    dots = [_dot(x.at(a), y.at(b), curve.css) for curve in curves if curve.dots for a, b in curve.points]
    words = [tag("span", text, class_="y", style=f"bottom:{y.at(value):.2f}%") for value, text in y.ticks]
    words += [tag("span", text, class_="x", style=f"left:{x.at(value):.2f}%") for value, text in x.ticks]
    ended = [curve for curve in curves if curve.label and curve.points]
    heights = apart([y.at(curve.points[-1][1]) / 100 * height for curve in ended], height)
    words += [
        tag(
            "span",
            curve.label,
            class_=f"end {curve.css}",
            style=f"left:{x.at(curve.points[-1][0]):.2f}%;bottom:{bottom:.1f}px",
        )
        for curve, bottom in zip(ended, heights, strict=True)
    ]
    if mark:
        side = "left" if x.at(mark[0]) > 60 else "right"
        dots.append(_dot(x.at(mark[0]), y.at(mark[1]), "mark"))
        words.append(
            tag(
                "span",
                mark[2],
                class_=f"note {side}",
                style=f"left:{x.at(mark[0]):.2f}%;bottom:{y.at(mark[1]):.2f}%",
            )
        )
    return tag(
        "div", drawing, dots, words, class_="wb-plot", style=f"height:{height}px", role="img", aria_label=alt
    )


def apart(bottoms: Sequence[float], height: float, least: float = LINE_HEIGHT) -> list[float]:
    """Label positions in pixels from the bottom, at least `least` apart, inside the plot where they fit."""
    order = sorted(range(len(bottoms)), key=lambda i: bottoms[i])
    placed = list(bottoms)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + least)
    over = max([placed[i] for i in order[-1:]], default=0.0) - height
    if over > 0:  # from the top down again
        ceiling = height
        for i in reversed(order):
            placed[i] = min(placed[i], ceiling)
            ceiling = placed[i] - least
    return placed


def bar(parts: Sequence[tuple[str, float, str]], full: float | None = None) -> Markup:
    """A stacked bar of (label, size, colour class) with its legend; `full` is the size of the track, else the sum. Parts of size 0 are
    left out."""
    total = full or sum(size for _, size, _ in parts) or 1.0
    shown = [part for part in parts if part[1] > 0]
    segments = [tag("i", class_=css, style=f"width:{100 * size / total:.2f}%") for _, size, css in shown]
    legend = [tag("span", tag("i", class_=css), words) for words, _, css in shown]
    return tag(
        "div",
        tag("div", segments, class_="wb-track"),
        tag("div", legend, class_="wb-legend"),
        class_="wb-bar",
    )


def spark(values: Sequence[float], alt: str, low: float = 0.0, high: float = 1.0) -> Markup:
    """A curve without axes, 96 by 24 pixels; the axis runs from low to high, further where the values do."""
    if len(values) < 2:
        return tag("span", "–", class_="i3", title="Too few steps for a curve")
    low, high = min(low, *values), max(high, *values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{1 + 94 * i / (len(values) - 1):.1f},{22 - 20 * (value - low) / span:.1f}"
        for i, value in enumerate(values)
    )
    return tag(
        "svg",
        tag("polyline", points=points),
        width=96,
        height=24,
        viewBox="0 0 96 24",
        class_="wb-spark",
        role="img",
        aria_label=alt,
    )


def _dot(left: float, bottom: float, css: str) -> Markup:
    return tag("i", class_=f"dot {css}", style=f"left:{left:.2f}%;bottom:{bottom:.2f}%")
