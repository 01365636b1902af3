"""Copies a run to Weights & Biases: metrics, settings, and a table of groups. Offline by default.

In: finished `StepRecord`s. Its own thread and a bounded queue, so that no failure in it stops or slows training; the
run folder remains the complete record.
"""

import os
import queue
import sys
import threading
from typing import Any, NamedTuple, Self

import numpy as np

from workbench.core.config import RunConfig
from workbench.core.types import StepRecord
from workbench.record import rollup
from workbench.record.folder import RunFolder
from workbench.record.redact import redact

MAX_INCREMENTS = 100
"""wandb shows at most this many increments of a table: longer runs send their groups every few steps."""
GROUP_COLUMNS = [
    "step", "group", "prompt_id", "question", "answer", "n", "right", "reward_mean", "reward_std",
    "gradient_share", "dead", "best", "worst",
]  # fmt: skip
_QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}


class Entry(NamedTuple):
    """What is sent of one step."""

    metrics: dict[str, float]
    groups: list[list[Any]]


class WandbSink:
    """Use as a context manager; `log` every record. `dropped` counts records that a full queue refused; `problem` is
    why nothing is sent (any more), '' where sending works."""

    def __init__(self, folder: RunFolder, config: RunConfig, *, max_pending: int = 64) -> None:
        self.folder = folder
        self.config = config
        self.dropped = 0
        self.problem = ""
        self._every = max(1, -(-config.steps // MAX_INCREMENTS))
        self._queue: queue.Queue[Entry | None] = queue.Queue(max_pending)
        self._thread = threading.Thread(target=self._work, name="wandb-sink", daemon=True)

    def __enter__(self) -> Self:
        if self.config.wandb != "off":
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def log(self, record: StepRecord) -> None:
        """Queues one record, or drops it where the queue is full. Never waits, never raises."""
        if self.config.wandb == "off" or self.problem:
            return
        try:
            self._queue.put_nowait(self._entry(record))
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = 60.0) -> None:
        """Waits at most `timeout` seconds for wandb to finish."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            self.problem = self.problem or "wandb did not keep up; the rest was not sent"
            return
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            run, table = _start(self.folder, self.config)
            while (entry := self._queue.get()) is not None:
                _write(run, table, entry)
            run.finish()
        except BaseException as error:  # boundary: whatever wandb raises, the run continues
            self.problem = f"{type(error).__name__}: {error}"
            print(
                f"wandb is off for the rest of this run ({self.problem}). The run folder has everything.",
                file=sys.stderr,
            )

    def _entry(self, record: StepRecord) -> Entry:
        if record.kind == "eval":
            name = f"heldout/{record.mode}/"
            found = {
                key if key.startswith("heldout/") else name + key: value
                for key, value in record.metrics.items()
            }
            return Entry({"step": record.step, **found}, [])
        wanted = record.step % self._every == 0
        return Entry({"step": record.step, **record.metrics}, _groups(record, self.config) if wanted else [])


def _start(folder: RunFolder, config: RunConfig) -> tuple[Any, Any]:
    """A wandb run and its table of groups."""
    # Files that wandb stages for a later sync belong into the run folder, not into the home folder.
    places = {"WANDB_DATA_DIR": str(folder.wandb), "WANDB_CACHE_DIR": str(folder.wandb / "cache")}
    for name, value in {**_QUIET, **places}.items():
        os.environ.setdefault(name, value)
    import wandb  # noqa: PLC0415 (seconds of start-up, and only in the thread that needs it)

    settings = wandb.Settings(
        console="off", silent=True, show_info=False, save_code=False, disable_code=True, disable_git=True,
        disable_job_creation=True, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
        x_save_requirements=False, root_dir=str(folder.path),
    )  # fmt: skip
    online = config.wandb == "online"
    run = wandb.init(
        project=config.wandb_project, name=config.run_name or folder.id, id=folder.id, dir=str(folder.path),
        config=redact(config.model_dump(mode="json")), mode="online" if online else "offline",
        resume="allow" if online else None, settings=settings,
    )  # fmt: skip
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run, wandb.Table(columns=GROUP_COLUMNS, log_mode="INCREMENTAL")


def _write(run: Any, table: Any, entry: Entry) -> None:
    for row in entry.groups:
        table.add_data(*row)
    run.log({**entry.metrics, "groups": table} if entry.groups else entry.metrics)


def _groups(record: StepRecord, config: RunConfig) -> list[list[Any]]:
    numbers = rollup.sample_numbers(record, rollup.accuracy_reward(config, record))
    rows: list[list[Any]] = []
    start = 0
    summaries = rollup.group_numbers(record, numbers, config)
    for k, (group, found) in enumerate(zip(record.groups, summaries, strict=True)):
        reward = np.nan_to_num(numbers.reward_B[start : start + len(group)], nan=-np.inf)
        start += len(group)
        prompt, texts = group.prompt, [rollout.text for rollout in group.rollouts]
        rows.append([
            record.step, k, prompt.id, prompt.question, prompt.answer, found.size, found.right,
            found.reward_mean, found.reward_std, found.gradient_share, found.zero_std,
            texts[int(reward.argmax())], texts[int(reward.argmin())],
        ])  # fmt: skip
    return rows
