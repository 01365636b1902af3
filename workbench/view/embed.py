"""The dashboard's reader without a dashboard: one HTML document that carries its modules, its style and a part of a run inside itself.

In: a run folder and what to show of it. Out: a page for a file, or a sandboxed frame for a notebook cell. The JavaScript is the same; it
reads from the embedded answers what it would ask of the routes.
"""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.view import delta as deltas
from workbench.view import lens, look, words
from workbench.view.store import Store

_IMPORT = re.compile(r'(?P<head>(?:\bfrom|\bimport)\s*\(?\s*)"(?P<path>\./[^"]+)"')
_FONT_FACE = re.compile(r"@font-face\s*{[^}]*}")
FRAME_HEIGHT = 860
"""Pixels of a notebook cell's frame."""


def answers(folder: RunFolder, groups: Mapping[int, Sequence[int]]) -> dict[str, Any]:
    """What the routes would answer for these steps and groups of a run, by path."""
    reader = Reader(folder)
    run = folder.id
    found: dict[str, Any] = {
        f"runs/{run}": {**look.header(reader), "search": False},
        f"runs/{run}/delta": deltas.delta(Store(folder.root), run, None),
        "glossary": words.glossary(),
    }
    for step, chosen in groups.items():
        found[f"runs/{run}/steps/{step}"] = look.step(reader, step, "train", None)
        for k in chosen:
            group = lens.group(reader, step, k, "train", None, True)
            found[f"runs/{run}/steps/{step}/groups/{k}?tokens=1"] = group
            found[f"runs/{run}/prompts/{group['prompt_id']}"] = lens.prompt(reader, group["prompt_id"])
    return found


def group_page(folder: RunFolder, step: int, k: int) -> str:
    """One group under the lens, as a page of its own."""
    found = answers(folder, {step: [k]})
    prompt = found[f"runs/{folder.id}/steps/{step}/groups/{k}?tokens=1"]["prompt_id"]
    return document(found, {"run": folder.id, "view": "group", "step": step, "prompt": prompt})


def live_page(folder: RunFolder) -> str:
    """The overview of a run with the groups of its newest step."""
    newest = look.newest(Reader(folder), "train")
    rows = look.step(Reader(folder), newest, "train", None)["groups"]
    return document(answers(folder, {newest: [row["k"] for row in rows]}), {"run": folder.id, "view": "live"})


def document(found: Mapping[str, Any], start: Mapping[str, Any], title: str = "GRPO workbench") -> str:
    """A self-contained page: nothing is fetched from anywhere."""
    static = resources.files("workbench") / "view" / "static"
    modules = {
        path: f"data:text/javascript;base64,{base64.b64encode(_bare(path, text).encode()).decode()}"
        for path, text in _modules(static)
    }
    style = _FONT_FACE.sub("", (static / "wb.css").read_text(encoding="utf-8"))
    uplot = (static / "vendor" / "uplot" / "uPlot.min.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en" class="wb" data-theme="light"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data:">
<title>{html.escape(title)}</title><style>{uplot}{style}body{{margin:0}}</style>
<script type="importmap">{json.dumps({"imports": modules})}</script></head>
<body><div id="wb-reader"></div>
<script type="application/json" id="answers">{_inert(found)}</script>
<script type="application/json" id="start">{_inert(start)}</script>
<script type="module">
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const {{ embedded }} = await import("wb/fetch.js");
const {{ mount }} = await import("wb/reader.js");
await mount(document.getElementById("wb-reader"), {{ ...embedded(read("answers")), start: read("start"), live: false }});
</script></body></html>"""


def frame(page: str, height: int = FRAME_HEIGHT) -> str:
    """A page inside a notebook cell: sandboxed, so text of the run can neither reach the notebook nor the network."""
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page)}" '
        f'style="width:100%;height:{height}px;border:1px solid #8884;border-radius:8px"></iframe>'
    )


def _modules(static: Any) -> list[tuple[str, str]]:
    files = [(entry.name, entry) for entry in static.iterdir() if entry.name.endswith(".js")]
    files += [("vendor/uplot/uPlot.esm.js", static / "vendor" / "uplot" / "uPlot.esm.js")]
    return [(f"wb/{name}", entry.read_text(encoding="utf-8")) for name, entry in files]


def _bare(path: str, text: str) -> str:
    """Relative imports as names of the import map: inside a data URL there is nothing to be relative to."""
    return _IMPORT.sub(lambda match: f'{match["head"]}"wb/{match["path"].removeprefix("./")}"', text)


def _inert(value: Any) -> str:
    """JSON in which no text can end the script element that holds it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
