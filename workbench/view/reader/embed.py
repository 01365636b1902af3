"""The reader without a server: one HTML document that carries its modules, its style and a part of a run.

In: a run folder and what to show of it. Out: a page for a file, or a sandboxed frame for a notebook cell. The JavaScript is that of the
dashboard; it reads embedded responses where it would call the routes.
"""

import base64
import html
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.view.common.glossary import glossary
from workbench.view.common.run_header import run_header
from workbench.view.common.run_store import RunStore
from workbench.view.group.group_data import group_details
from workbench.view.live.delta import read_delta
from workbench.view.live.step_groups import step_groups
from workbench.view.prompt.prompt_data import prompt_history

_IMPORT = re.compile(r'(?P<head>(?:\bfrom|\bimport)\s*\(?\s*)"(?P<path>\.\.?/[^"]+)"')
_CSS_IMPORT = re.compile(r"@import[^;]*;")
_FONT_FACE = re.compile(r"@font-face\s*{[^}]*}")
_FONT = re.compile(r"url\(fonts/(?P<name>[^)]+)\)")
_FOLDERS = ("common", "reader", "live", "group", "prompt", "search", "whatif", "ask")
"""Folders with the reader's JavaScript modules."""
FRAME_HEIGHT = 860
"""Pixels of a notebook cell's frame."""
LIMIT = 12 * 2**20
"""Bytes of an exported page by default."""


def responses(folder: RunFolder, groups: Mapping[int, Sequence[int]]) -> dict[str, Any]:
    """What the routes return for a run and for these groups (`{step: [k]}`) of it, by path."""
    reader = Reader(folder)
    run = folder.id
    found: dict[str, Any] = {
        f"runs/{run}": {**run_header(reader), "search": False},
        f"runs/{run}/delta": read_delta(RunStore(folder.root), run, None),
        "glossary": glossary(),
    }
    for step, chosen in groups.items():
        found[f"runs/{run}/steps/{step}"] = step_groups(reader, step)
        for k in chosen:
            group = group_details(reader, step, k, tokens=True)
            found[f"runs/{run}/steps/{step}/groups/{k}?tokens=1"] = group
            found[f"runs/{run}/prompts/{group['prompt_id']}"] = prompt_history(reader, group["prompt_id"])
    return found


def group_page(folder: RunFolder, step: int, k: int) -> str:
    """The Group view of one group, as a page of its own."""
    found = responses(folder, {step: [k]})
    prompt = found[f"runs/{folder.id}/steps/{step}/groups/{k}?tokens=1"]["prompt_id"]
    return document(found, {"run": folder.id, "view": "group", "step": step, "prompt": prompt})


def live_page(folder: RunFolder) -> str:
    """The Live view of a run with the groups of its newest step; before the first step without groups."""
    newest = Reader(folder).last_step()
    rows = [] if newest is None else step_groups(Reader(folder), newest)["groups"]
    chosen = {} if newest is None else {newest: [row["k"] for row in rows]}
    return document(responses(folder, chosen), {"run": folder.id, "view": "live"})


class Page(NamedTuple):
    """A page for a file, and which part of the run it holds."""

    html: str
    steps: list[int]
    """Steps whose groups are in the page."""
    of: int
    """Steps of the run."""
    words: str
    """The part in one sentence."""


def run_page(folder: RunFolder, limit: int = LIMIT) -> Page:
    """A whole run as one file of about `limit` bytes at most: every curve and held-out evaluation, and as many whole steps as fit,
    spread evenly over the run. The page says which."""
    reader = Reader(folder)
    steps = reader.steps()
    found = responses(folder, {})
    left = limit - _bytes(found) - _bytes(document({}, {}, fonts=True))
    held: list[int] = []
    for step in _spread(steps):
        part = responses(folder, {step: [row["k"] for row in reader.groups(step)]})
        part = {name: value for name, value in part.items() if name not in found}
        size = _bytes(part)
        if (
            size > left and not held
        ):  # one step is too large: those of its groups with the largest share of the gradient
            part, size = _largest_groups(folder, step, found, left)
        if size > left:
            break
        found |= part
        held.append(step)
        left -= size
    held.sort()
    words = _held_words(held, steps)
    found[f"runs/{folder.id}"] |= {"held": held, "excerpt": words}
    name = folder.config().run_name or folder.id
    start = {"run": folder.id, "view": "live", "step": None}
    return Page(document(found, start, f"{name} · GRPO workbench", fonts=True), held, len(steps), words)


def _largest_groups(
    folder: RunFolder, step: int, known: Mapping[str, Any], limit: int
) -> tuple[dict[str, Any], int]:
    """Responses with as many groups of one step as fit into `limit` bytes, and their size; more than `limit` where none fits."""
    rows = step_groups(Reader(folder), step)["groups"]
    for count in range(len(rows) - 1, 0, -1):
        part = responses(folder, {step: [row["k"] for row in rows[:count]]})
        place = f"runs/{folder.id}/steps/{step}"
        part[place] = {**part[place], "groups": rows[:count]}
        part = {name: value for name, value in part.items() if name not in known}
        if (size := _bytes(part)) <= limit:
            return part, size
    return {}, limit + 1


def _spread(steps: Sequence[int]) -> list[int]:
    """All steps, in an order of which every prefix is spread evenly over the run: the last, the first, the middle, ..."""
    if not steps:
        return []
    order = [len(steps) - 1, 0]
    gaps = [(0, len(steps) - 1)]
    while gaps:
        halves = [(low, (low + high) // 2, high) for low, high in gaps if high - low > 1]
        order += [middle for _, middle, _ in halves]
        gaps = [half for low, middle, high in halves for half in ((low, middle), (middle, high))]
    return [steps[place] for place in dict.fromkeys(order)]


def _held_words(held: Sequence[int], steps: Sequence[int]) -> str:
    if not steps:
        return "The run had no step yet when this page was written."
    if len(held) == len(steps):
        return f"This page holds the whole run: all {len(steps)} steps with every group."
    listed = ", ".join(map(str, held[:12])) + (" and more" if len(held) > 12 else "")
    which = f"{len(held)} of {len(steps)} steps with their groups ({listed})" if held else "no groups"
    return f"This page holds every curve and {which}. The run folder holds the rest."


def _bytes(value: Any) -> int:
    return len(value if isinstance(value, str) else _inert(value))


def document(
    found: Mapping[str, Any], start: Mapping[str, Any], title: str = "GRPO workbench", *, fonts: bool = False
) -> str:
    """A self-contained page that fetches nothing. `found`: responses by path; `start`: the cursor. Without `fonts` it uses system fonts."""
    view = resources.files("workbench.view")
    modules = {
        path: f"data:text/javascript;base64,{base64.b64encode(_bare(path, text).encode()).decode()}"
        for path, text in _modules(view)
    }
    style = _CSS_IMPORT.sub("", (view / "common" / "wb.css").read_text(encoding="utf-8"))
    style = _FONT.sub(lambda match: _inline(view, match), style) if fonts else _FONT_FACE.sub("", style)
    uplot = (view / "vendor" / "uplot" / "uPlot.min.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en" class="wb" data-theme="light"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data:; font-src data:">
<title>{html.escape(title)}</title><style>{uplot}{style}body{{margin:0}}</style>
<script type="importmap">{json.dumps({"imports": modules})}</script></head>
<body><div id="wb-reader"></div>
<script type="application/json" id="responses">{_inert(found)}</script>
<script type="application/json" id="start">{_inert(start)}</script>
<script type="module">
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const {{ embedded }} = await import("wb/common/fetch.js");
const {{ mount }} = await import("wb/reader/reader.js");
await mount(document.getElementById("wb-reader"), {{ ...embedded(read("responses")), start: read("start"), live: false }});
</script></body></html>"""


def frame(page: str, height: int = FRAME_HEIGHT) -> str:
    """A page inside a notebook cell: sandboxed, so that text of the run can reach neither the notebook nor the network."""
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        f'style="width:100%;height:{height}px;border:1px solid #8884;border-radius:8px"></iframe>'
    )


def _modules(view: Any) -> list[tuple[str, str]]:
    """Every module that the reader may import: (name in the import map, source)."""
    files = {
        f"{folder}/{entry.name}": entry
        for folder in _FOLDERS
        for entry in (view / folder).iterdir()
        if entry.name.endswith(".js")
    }
    files["vendor/uplot/uPlot.esm.js"] = view / "vendor" / "uplot" / "uPlot.esm.js"
    return [(f"wb/{path}", entry.read_text(encoding="utf-8")) for path, entry in files.items()]


def _bare(path: str, text: str) -> str:
    """The source with relative imports as names of the import map, since a data URL has no base for relative ones."""
    folder = posixpath.dirname(path)
    return _IMPORT.sub(
        lambda match: f'{match["head"]}"{posixpath.normpath(posixpath.join(folder, match["path"]))}"', text
    )


def _inline(view: Any, match: re.Match[str]) -> str:
    data = base64.b64encode((view / "common" / "fonts" / match["name"]).read_bytes()).decode()
    return f"url(data:font/woff2;base64,{data})"


def _inert(value: Any) -> str:
    """JSON in which no text can end the script element that holds it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
