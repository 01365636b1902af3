"""Stage 7 as the loop sees it: a finished step is completed and written while the next one is being sampled.

In: a `StepRecord` with what the update saw, or a held-out evaluation. Out: the same in the record, in wandb and as a line of worker.log,
and the alarms that follow from it.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from workbench.core.config import RunConfig
from workbench.core.types import StepRecord
from workbench.diagnose.alarms.recorder import AlarmRecorder
from workbench.diagnose.metrics import step_metrics
from workbench.record.folder import RunFolder
from workbench.record.wandb_sink import WandbSink
from workbench.record.writer import Writer
from workbench.rollouts.engine import Engine
from workbench.train import guards
from workbench.train.update import Updater


class StepRecorder:
    """Completes and writes steps in a second thread.

    The post-update and reference passes cost half as much as the update and only the record needs them; they read weights, so the
    updater waits for them (`Updater.reading_in_background`) before it moves any.
    """

    def __init__(
        self,
        folder: RunFolder,
        updater: Updater,
        engine: Engine,
        writer: Writer,
        tracker: WandbSink,
        alarms: AlarmRecorder,
    ) -> None:
        self.folder, self.updater, self.engine, self.writer = folder, updater, engine, writer
        self.tracker, self.alarms = tracker, alarms
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="step-recorder")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
                self.alarms.end()
        finally:
            self._thread.shutdown(wait=True)

    def evaluation(self, record: StepRecord) -> None:
        """Write a held-out evaluation."""
        self.writer.step(record)
        self.alarms.check(record)
        self.tracker.log(record)
        print(format_log_line(record), flush=True)

    def step(self, record: StepRecord, config: RunConfig, skipped: Sequence[str] = ()) -> None:
        """Start on a finished step. `skipped`: why updates were left out; the batch is then kept, and the call waits until it is."""
        self.updater.reading_in_background = self._thread.submit(self._complete, record, config)
        switches_adapter = self.updater.policy.is_lora and self.engine.capabilities.shares_weights
        if switches_adapter or self.updater.ranks.size > 1 or cores() < 2 or skipped:
            # The adapter that is switched off for the reference must stay on while the engine samples with it; ranks do one thing at a
            # time together; and two threads on one core only take each other's place in its caches.
            self.wait()
        if skipped:
            guards.dump(self.folder, record, list(skipped))

    def metrics(self, record: StepRecord) -> dict[str, float]:
        """All metrics of a step that was begun."""
        self.wait()
        return record.metrics

    def wait(self) -> None:
        """Until the step that was begun is complete; raises what went wrong there."""
        pending: Future[None] | None = self.updater.reading_in_background
        self.updater.reading_in_background = None
        if pending is not None:
            pending.result()

    def _complete(self, record: StepRecord, config: RunConfig) -> None:
        started = time.perf_counter()
        if record.tokens is not None:
            self.updater.post_update_pass(record.tokens, record.groups, config, record.step)
        record.metrics["time/look_back"] = time.perf_counter() - started
        record.metrics |= step_metrics(record, config, self.writer.token_text)
        self.writer.step(record)
        self.alarms.step(record, config)
        self.tracker.log(record)
        print(format_log_line(record), flush=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def format_log_line(record: StepRecord) -> str:
    """A step or an evaluation as one line of worker.log, the last of which a page shows when a run dies."""
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
