"""Watches a run until it is over: a progress line for terminals and notebooks, and the summary that scripts
read.

Only reads: to stop watching changes nothing about the run.
"""

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from workbench import launch
from workbench.launch import RunState
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

POLL_SECONDS = 0.5
ENDS = 5
"""Training steps at either end that the summary averages completion lengths over."""


def follow(folder: RunFolder, draw: bool = True) -> RunState:
    """Wait until the run is over and return its state; with `draw`, a progress line on standard error."""
    if not draw:
        while not (now := launch.state(folder)).over:
            time.sleep(POLL_SECONDS)
        return now
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    reader, cursor, figures = Reader(folder), 0, ""
    with Progress(*columns, console=Console(stderr=True)) as progress:
        line = progress.add_task("starts", total=None, figures="")
        while True:
            now = launch.state(folder)
            news = (
                reader.series(cursor, names=["reward", "heldout/sampled/accuracy"])
                if folder.db_path.exists()
                else {}
            )
            cursor, figures = news.get("cursor", 0), _figures(news) or figures
            progress.update(
                line,
                description=_activity(now),
                completed=now.step,
                total=now.steps or None,
                figures=" · ".join(part for part in (figures, _time_left(now)) if part),
            )
            if now.over:
                return now
            time.sleep(POLL_SECONDS)


def _activity(now: RunState) -> str:
    if now.stalled:
        return f"{now.state}, stalled: {now.stalled}"
    if now.state == "queued":
        return f"queued, {now.reason}"
    if now.state in ("starting", "running") and now.phase:
        return f"{now.phase} {now.phase_done}/{now.phase_total}" if now.phase_total else now.phase
    return now.state


def _time_left(now: RunState) -> str:
    if now.eta is None or now.over:
        return ""
    return f"{math.ceil(now.eta)} s left" if now.eta < 90 else f"{math.ceil(now.eta / 60)} min left"


def _figures(news: dict[str, Any]) -> str:
    """The last reward and held-out accuracy among new metrics, '' where there is none."""
    parts = []
    for name, series in (
        ("reward", news.get("train", {}).get("reward")),
        ("held-out", news.get("sampled", {}).get("heldout/sampled/accuracy")),
    ):
        values = [value for value in series or [] if value is not None]
        if values:
            parts.append(f"{name} {values[-1]:.2f}")
    return " · ".join(parts)


def summary(folder: RunFolder) -> dict[str, Any]:
    """A run in one JSON object: its folder, how far it came, held-out accuracy and mean completion length (tokens) at
    both ends (None where nothing is recorded)."""
    now = launch.state(folder)
    reader = Reader(folder)
    evaluations = reader.series(names=["heldout/sampled/accuracy", "heldout/greedy/accuracy"])
    found: dict[str, Any] = {
        "run": now.id,
        "run_dir": str(now.path),
        "state": now.state,
        "reason": now.reason,
        "step": now.step,
        "steps": now.steps,
        "seconds": None if now.seconds is None else round(now.seconds, 3),
    }
    for mode in ("sampled", "greedy"):
        accuracies = evaluations[mode].get(f"heldout/{mode}/accuracy", [])
        values = [value for value in accuracies if value is not None]
        found[f"heldout_{mode}_first"] = values[0] if values else None
        found[f"heldout_{mode}_last"] = values[-1] if values else None
    steps = reader.steps()
    found["mean_length_first"] = _mean_length(reader, steps[:ENDS])
    found["mean_length_last"] = _mean_length(reader, steps[-ENDS:])
    return found


def _mean_length(reader: Reader, steps: list[int]) -> float | None:
    """Mean completion length in tokens over all samples of these steps, so that a step with more samples weighs more."""
    lengths = [dot["length"] for step in steps for group in reader.groups(step) for dot in group["dots"]]
    return sum(lengths) / len(lengths) if lengths else None
