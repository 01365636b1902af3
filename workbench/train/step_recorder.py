"""Stage 7 as the loop sees it: a step is completed and written while the next one is being sampled.

In: a `StepRecord` with what the update saw. Out: the same in the record, in wandb and as a line of worker.log, with its alarms.
"""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from workbench.core.config import RunConfig
from workbench.core.types import StepRecord
from workbench.diagnose.alarms.keeper import Keeper
from workbench.diagnose.metrics import step_metrics
from workbench.record.wandb_sink import WandbSink
from workbench.record.writer import Writer
from workbench.train.update import Updater


class LookingBack:
    """Completes and writes a step's record in a second thread, while the next step is being sampled.

    Reference and look-back passes cost half as much as the update and only the record needs them; they read weights, so the loop waits
    for them before it moves any.
    """

    def __init__(self, updater: Updater, record: Writer, tracker: WandbSink, alarms: Keeper) -> None:
        self.updater, self.record, self.tracker, self.alarms = updater, record, tracker, alarms
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="look-back")
        self.pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.thread.shutdown(wait=True)

    def begin(self, done: StepRecord, config: RunConfig) -> None:
        """Start on a finished step; its metrics are there after `wait`."""
        self.pending = self.thread.submit(self._finish, done, config)
        if self.updater.policy.is_lora or self.updater.team.size > 1 or cores() < 2:
            # An adapter switched off must not be while the policy samples; processes do one thing at a time together; and two
            # threads on one core only take each other's place in its caches.
            self.wait()

    def wait(self) -> None:
        """Until the step that was begun is recorded; raises what went wrong there."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def _finish(self, done: StepRecord, config: RunConfig) -> None:
        started = time.perf_counter()
        if done.tokens is not None:
            self.updater.look_back(done.tokens, done.groups, config, done.step)
        done.metrics["time/look_back"] = time.perf_counter() - started
        done.metrics |= step_metrics(done, config, self.record.token_text)
        self.record.step(done)
        self.alarms.step(done, config)
        self.tracker.log(done)
        print(told(done), flush=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def told(record: StepRecord) -> str:
    """A step or a check as one line of worker.log, the last of which a page shows when a run dies."""
    found = record.metrics
    if record.mode:
        accuracy, problems = (
            found.get(f"heldout/{record.mode}/{name}", 0.0) for name in ("accuracy", "problems")
        )
        return f"after step {record.step}: {accuracy:.0%} of {problems:.0f} held-out problems right, {record.mode}"
    reward, length = found.get("reward", float("nan")), found.get("completions/mean_length", float("nan"))
    return (
        f"step {record.step}: reward {reward:.3f}, {length:.0f} tokens, loss {found.get('loss', 0.0):+.4f}, "
        f"gradient {found.get('grad_norm', 0.0):.3f}, {sum(record.phases.values()):.1f} s"
    )
