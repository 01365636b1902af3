"""Runs for the benchmarks of alarms: each is a run of its own process, recorded once below a folder and found there again."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import launch
from workbench.core.config import RunConfig
from workbench.core.errors import WorkbenchError
from workbench.diagnose.alarms.watch import Change, replay
from workbench.launch import preflight
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

USUAL = {"wandb": "off", "threads": 1}


def recorded(root: Path, name: str, settings: Mapping[str, Any]) -> RunFolder | None:
    """The run of this name below `root`, made there if it is not yet. None, with the reason printed, where it cannot begin."""
    root.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(root / name)
    if folder.config_path.exists():
        return folder
    try:
        started = preflight.start(RunConfig.build(None, {**USUAL, "run_name": name, **settings}), root)
    except WorkbenchError as error:
        print(f"{name} does not begin: {error}", flush=True)
        return None
    while not launch.state(started).over:
        time.sleep(0.5)
    started.path.rename(folder.path)
    return folder


def alarms(folder: RunFolder) -> tuple[int, list[Change], list[Change]]:
    """Steps of a run, the alarms that were raised in it, and the observations. What began as an observation and became an alarm
    counts as one from then on."""
    watch, changes = replay(Reader(folder))
    loud: dict[tuple[str, int], Change] = {}
    info: list[Change] = []
    begun: dict[str, int] = {}
    for change in changes:
        if change.finding is None:
            continue
        if change.begins:
            begun[change.name] = change.step
        if change.finding.level != "info":
            loud.setdefault((change.name, begun[change.name]), change)
        elif change.begins:
            info.append(change)
    return len(watch.history.steps), sorted(loud.values(), key=lambda change: change.step), info


def broke(folder: RunFolder) -> float:
    """The largest fall of the share of right training answers, means of three steps, from what it had reached."""
    values = [
        value for value in Reader(folder).series(names=["accuracy"])["train"]["accuracy"] if value is not None
    ]
    means = [sum(values[i : i + 3]) / 3 for i in range(len(values) - 2)]
    best = fall = 0.0
    for mean in means:
        best = max(best, mean)
        fall = max(fall, best - mean)
    return fall
