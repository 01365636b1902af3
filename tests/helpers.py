"""Waiting with a deadline, and workers without torch."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import RunState
from workbench.record import folder as record
from workbench.record.folder import Kind, RunFolder

T = TypeVar("T")
FAKE_WORKER = (sys.executable, "-P", str(Path(__file__).with_name("fake_worker.py")))
"""Pass as `worker=` to launch.start: a real worker process around a loop that only counts."""


def wait_until(condition: Callable[[], T], timeout: float = 60.0, what: str = "") -> T:
    """The first true value of `condition`, looked at every 20 ms; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or condition}"
        time.sleep(0.02)
    return value


class Yard:
    """A runs root whose workers are real processes around the counting loop; `close` leaves none behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.worker: tuple[str, ...] = FAKE_WORKER
        self.started: list[RunFolder] = []

    def start(
        self, *, steps: int = 20_000, kind: Kind = "train", key: str | None = None, **plan: Any
    ) -> RunFolder:
        """Start a run; `plan` says what the counting loop does (see fake_worker)."""
        config = RunConfig.build(None, {"steps": steps, "device": "cpu"})
        folder = launch.start(
            config, self.root, kind, files={"fake.json": json.dumps(plan)}, key=key, worker=self.worker
        )
        self.started.append(folder)
        return folder

    def reaches(self, folder: RunFolder, state: str, timeout: float = 60.0) -> RunState:
        """The run's state once it is `state`."""
        return self._when(folder, lambda now: now.state == state, state, timeout)

    def goes_on(self, folder: RunFolder, more: int = 2, timeout: float = 60.0) -> RunState:
        """The run's state once it has done that many more steps."""
        goal = launch.state(folder).step + more
        return self._when(folder, lambda now: now.step >= goal, f"step {goal}", timeout)

    def _when(
        self, folder: RunFolder, condition: Callable[[RunState], bool], what: str, timeout: float
    ) -> RunState:
        deadline = time.monotonic() + timeout
        while not condition(now := launch.state(folder)):
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}; it is {now}"
            assert not (now.over and not now.alive and now.state != "crashed"), f"never {what}: it is {now}"
            time.sleep(0.02)
        return now

    def close(self) -> None:
        """Kill every worker in the runs root, and every other one that was started from here."""
        for folder in {*self.started, *record.folders(self.root)}:
            if folder.path.exists() and folder.damage() is None:
                launch.stop(folder, grace=0, kill_after=0)
