"""Guards of the loop: a full disk makes it wait, updates with numbers that are not finite are dumped and, three in a row, end it.

In: what the loop is about to do, or has just done. Out: the same, or a RunError that says what to change. Torch-free.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from workbench.core.errors import DiskFull, RunError
from workbench.core.types import StepRecord
from workbench.record import disk_space
from workbench.record.control import Control
from workbench.record.files import make_folder, write_json
from workbench.record.folder import RunFolder
from workbench.record.redact import redact
from workbench.record.writer import Writer

Result = TypeVar("Result")
DUMPS = 10
"""Batches of skipped updates that are kept, the newest ones."""


class Disk:
    """Makes the loop wait, paused, while the disk is full. `resume` goes on without waiting any longer."""

    def __init__(self, folder: RunFolder, control: Control, record: Writer) -> None:
        self._folder, self._control, self._record = folder, control, record
        self._accepted = False
        """A user asked the run to go on although there is little space."""

    def wait(self) -> None:
        """At a boundary: until what waits to be recorded is written and there is room for more."""
        while (problem := self._problem()) and not self._control.stop_requested:
            self._accepted = self._control.hold(problem, lambda: not self._problem())
            self._record.retry()

    def written(self, work: Callable[[], Result]) -> Result:
        """`work`, again whenever room was made. Raises DiskFull where the run is to stop meanwhile."""
        while True:
            try:
                return work()
            except DiskFull as error:
                if self._control.stop_requested:
                    raise
                self._control.hold(str(error), lambda: not disk_space.measure(self._folder).shortage)
                self._record.retry()

    def _problem(self) -> str:
        trouble = ""
        if self._record.failure is not None:
            self._record.retry()
            try:
                self._record.flush(timeout=5.0)
            except RunError as error:
                trouble = str(error)
        short = disk_space.measure(self._folder).shortage
        self._accepted = self._accepted and bool(short)
        return trouble or ("" if self._accepted else short)


def dump(folder: RunFolder, record: StepRecord, skipped: list[str]) -> None:
    """Keep the batch of a step whose update was skipped in `skipped/`, to show which completion caused it."""
    place = folder.path / "skipped"
    make_folder(place)
    samples = []
    for b, (rollout, score) in enumerate(zip(record.rollouts(), record.scores_B, strict=True)):
        policy_T = record.tokens.policy_logp[b] if record.tokens and record.tokens.policy_logp else None
        samples.append(
            {
                "seed": rollout.seed,
                "text": rollout.text,
                "token_ids": rollout.token_ids.tolist(),
                "sampler_logp": _plain(rollout.logprobs),
                "policy_logp": None if policy_T is None else _plain(policy_T),
                "values": dict(score.values),
                "reasons": dict(score.reasons),
                "reward": score.reward,
                "advantage": None
                if record.advantages_B is None
                else _plain(record.advantages_B[b : b + 1])[0],
            }
        )
    prompts = [
        {"id": group.prompt.id, "text": group.prompt.text, "answers": len(group)} for group in record.groups
    ]
    metrics = {name: _number(value) for name, value in record.metrics.items()}
    content = {
        "step": record.step,
        "skipped": skipped,
        "metrics": metrics,
        "prompts": prompts,
        "samples": samples,
    }
    write_json(place / f"step-{record.step:06d}.json", redact(content))
    for old in sorted(place.glob("step-*.json"))[:-DUMPS]:
        old.unlink(missing_ok=True)


def not_finite(skipped: list[str], newest: Path | None) -> RunError:
    """What to say after too many skipped updates in a row."""
    there = f"The last good checkpoint is {newest.name}" if newest else "There is no checkpoint yet"
    return RunError(
        f"Three updates in a row were not finite (last: {skipped[-1]}); none of them touched the weights, and their samples lie in "
        f"skipped/. {there}. Go on with other settings, for example: workbench resume RUN --set learning_rate=... ; as it is the run "
        "would end here again."
    )


def _plain(values: np.ndarray[Any, Any]) -> list[float | str]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | str:
    """JSON has no NaN, and here it is what the reader looks for."""
    return value if math.isfinite(value) else str(value)
