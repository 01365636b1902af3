"""What earlier runs with these settings reached: runs in the same folder, else figures that ship with the preset.

In: the store and a RunConfig. Out: `Expected`: curves of held-out accuracy, seconds, completion lengths.
"""

import json
import statistics
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from statistics import fmean
from typing import Any, NamedTuple

from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.view.common.run_store import RunStore

MAX_RUNS = 3
# These change neither what the model learns nor how fast a step is.
_IRRELEVANT = frozenset(
    {
        "seed",
        "run_name",
        "wandb",
        "wandb_project",
        "keep_token_steps",
        "save_steps",
        "save_total_limit",
        "watched_prompts",
        "watched_samples",
    }
)
_ACCURACY, _LENGTH = "heldout/sampled/accuracy", "completions/mean_length"
_FINISHED = frozenset({"finished", "stopped"})


class Curve(NamedTuple):
    """Sampled held-out accuracy of one earlier run."""

    seed: int
    points: tuple[tuple[int, float], ...]


class Expected(NamedTuple):
    """Results of runs with the same settings."""

    source: str
    curves: tuple[Curve, ...]
    seconds: float | None
    """Wall seconds of the whole run."""
    phases: dict[str, float]
    """Seconds by phase."""
    lengths: tuple[float, float] | None
    """Mean completion length of the first and of the last five steps, tokens."""
    note: str = ""

    @property
    def base(self) -> float | None:
        """Accuracy before the first step."""
        starts = [curve.points[0][1] for curve in self.curves if curve.points and curve.points[0][0] == 0]
        return sum(starts) / len(starts) if starts else None


def expected_results(store: RunStore, config: RunConfig) -> Expected | None:
    """At most three earlier runs with the same relevant settings; else the preset's recorded figures; else None."""
    return _earlier(store, config) or shipped(config)


def shipped(config: RunConfig) -> Expected | None:
    """The recorded figures of a shipped preset with exactly these settings."""
    for name, data in _records().items():
        if _same(RunConfig.build(name).model_dump(mode="json"), config.model_dump(mode="json")):
            curves = tuple(
                Curve(run["seed"], tuple((int(step), float(value)) for step, value in run["heldout_sampled"]))
                for run in data["runs"]
            )
            return Expected(
                data["source"],
                curves,
                data.get("seconds"),
                data.get("phases", {}),
                tuple(data["lengths"]) if "lengths" in data else None,
                data.get("note", ""),
            )
    return None


def figures(folders: Sequence[RunFolder], source: str, note: str = "") -> dict[str, Any]:
    """What `presets/<name>.expected.json` holds, from finished runs of the preset: curves, the median run's
    wall seconds and phases, mean lengths of the first and the last five steps."""
    runs, seconds, phases, lengths = [], [], [], []
    for folder in folders:
        reader = Reader(folder)
        series = reader.series(names=[_ACCURACY, _LENGTH])
        runs.append({"seed": folder.about()["seed"], "heldout_sampled": _points(series)})
        status = folder.status()
        seconds.append(status["ended"] - status["started"])
        phases.append(_phases(reader))
        lengths.append(_length_change(series))
    middle = sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
    grown = [pair for pair in lengths if pair]
    return {
        "source": source, "note": note, "runs": runs, "seconds": round(seconds[middle], 1),
        "phases": {name: round(value, 1) for name, value in phases[middle].items()},
        "lengths": [round(fmean(pair[i] for pair in grown), 1) for i in range(2)] if grown else None,
    }  # fmt: skip


def _earlier(store: RunStore, config: RunConfig) -> Expected | None:
    wanted = config.model_dump(mode="json")
    curves: list[Curve] = []
    seconds: list[float] = []
    lengths: list[tuple[float, float]] = []
    for folder in record.folders(store.root):
        try:
            about, status = folder.about(), folder.status()
            like = about.get("kind") == "train" and _same(about.get("config", {}), wanted)
            if not like or status.get("state") not in _FINISHED:
                continue
            series = Reader(folder).series(names=[_ACCURACY, _LENGTH])
        except RunError:
            continue
        points = _points(series)
        if len(points) < 2:
            continue
        curves.append(Curve(int(about["seed"]), points))
        if status["state"] == "finished" and status.get("ended") and status.get("started"):
            seconds.append(status["ended"] - status["started"])
        if grown := _length_change(series):
            lengths.append(grown)
        if len(curves) == MAX_RUNS:
            break
    if not curves:
        return None
    count = {1: "an earlier run", 2: "two earlier runs", 3: "three earlier runs"}[len(curves)]
    return Expected(
        source=f"Held-out accuracy of {count} with these settings, here",
        curves=tuple(curves),
        seconds=statistics.median(seconds) if seconds else None,
        phases={},
        lengths=(fmean(pair[0] for pair in lengths), fmean(pair[1] for pair in lengths)) if lengths else None,
    )


def _points(series: dict[str, Any]) -> tuple[tuple[int, float], ...]:
    """(step, sampled held-out accuracy) of each evaluation."""
    evaluations = series["sampled"]
    pairs = zip(evaluations["step"], evaluations[_ACCURACY], strict=True)
    return tuple((step, value) for step, value in pairs if value is not None)


def _length_change(series: dict[str, Any]) -> tuple[float, float] | None:
    """Mean completion length of the first and of the last five training steps."""
    values = [value for value in series["train"][_LENGTH] if value is not None]
    return (fmean(values[:5]), fmean(values[-5:])) if len(values) >= 10 else None


def _phases(reader: Reader) -> dict[str, float]:
    """Wall seconds by phase; what sampling and updates leave of the whole is evaluation and start."""
    rows = reader.phases(last=10**6)
    total = {name: sum(row.get(name, 0.0) for row in rows) for name in ("sample", "update")}
    status = reader.status
    rest = max(0.0, status["ended"] - status["started"] - sum(total.values()))
    return {"sampling": total["sample"], "update": total["update"], "evaluation and start": rest}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == value for name, value in other.items() if name not in _IRRELEVANT)


@lru_cache(maxsize=1)
def _records() -> dict[str, dict[str, Any]]:
    """`presets/<name>.expected.json` of every preset that has one."""
    folder = resources.files("workbench.core.presets")
    return {
        entry.name.removesuffix(".expected.json"): json.loads(entry.read_text())
        for entry in folder.iterdir()
        if entry.name.endswith(".expected.json")
    }
