"""Records the alarms of a running run: applies `Watch` after every step and writes what changes, with evidence.

In: finished `StepRecord`s of the training loop. Out: rows of the table alarms.
"""

import threading

from workbench.core.config import RunConfig
from workbench.core.types import StepRecord
from workbench.diagnose.alarms import evidence
from workbench.diagnose.alarms.remedies import RunLimits
from workbench.diagnose.alarms.watch import Change, Watch, replay, text_of
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.writer import Writer


class AlarmRecorder:
    """Called by the training loop: `check` and `step` with what was recorded, `end` at the end. Steps may come from another
    thread than evaluations."""

    def __init__(
        self, folder: RunFolder, record: Writer, config: RunConfig, around: RunLimits, first: int = 0
    ) -> None:
        """`first`: the step at which a resumed run continues; the steps recorded before it are replayed, and an alarm that a
        later step had raised is cleared."""
        self.record, self._lock = record, threading.Lock()
        reader = Reader(folder)
        self.watch = replay(reader, config, around, first)[0] if first else Watch(config, around)
        for alarm in reader.alarms(open_only=True):
            if alarm["name"] not in self.watch.open:
                record.clear_alarm(alarm["name"], first)
        self._last: StepRecord | None = None

    def check(self, record: StepRecord) -> None:
        """After a held-out evaluation."""
        if record.mode == "sampled":
            with self._lock:
                self.watch.check(record.step, record.metrics)

    def step(self, record: StepRecord, config: RunConfig) -> None:
        """After a training step was recorded."""
        with self._lock:
            self._last = record
            for change in self.watch.step(record.step, record.metrics, config):
                self._write(change, record, config)

    def end(self) -> None:
        """After the last evaluation of the run."""
        with self._lock:
            if self._last is not None:
                for change in self.watch.end():
                    self._write(change, self._last, self.watch.history.config)

    def _write(self, change: Change, record: StepRecord, config: RunConfig) -> None:
        finding = change.finding
        if finding is None:
            self.record.clear_alarm(change.name, change.step)
            return
        shown = evidence.samples(change.name, record, config)
        self.record.alarm(
            change.name,
            finding.level,
            change.step,
            finding.claim,
            text_of(change.name, finding),
            {**finding.figures, "samples": shown},
            finding.remedies,
            since=finding.since,
        )
