"""Applies every alarm rule after every step, and reports which alarms begin, continue and end.

In: metrics of steps and evaluations, in order. Out: `Change`s. Deterministic: the same metrics give the same alarms in a
worker, in a replay of a record, and in a test.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from workbench.core.config import RunConfig
from workbench.core.glossary import ALARMS
from workbench.diagnose.alarms import completions, policy, reward_signal
from workbench.diagnose.alarms.history import Finding, History
from workbench.diagnose.alarms.remedies import RunLimits
from workbench.record.reader import Reader

RULES: Mapping[str, Callable[[History], Finding | None]] = {
    **reward_signal.RULES,
    **policy.RULES,
    **completions.RULES,
}
CALM = 6
"""Steps without a finding after which an alarm ends; fewer would make it flicker."""
RENEW = 5
"""Steps after which a continuing alarm is reported again with its newest figures."""


class Change(NamedTuple):
    """An alarm that begins or continues (`finding`), or has ended (None)."""

    name: str
    step: int
    finding: Finding | None
    begins: bool = False


class Open(NamedTuple):
    """An open alarm."""

    finding: Finding
    reported: int
    """The step at which it was reported last."""
    seen: int
    """The step at which its rule applied last."""


class Watch:
    """The alarms of one run while it trains."""

    def __init__(self, config: RunConfig, around: RunLimits | None = None) -> None:
        self.history = History(config, around)
        self.open: dict[str, Open] = {}
        self._checks: list[tuple[int, Mapping[str, float | None]]] = []

    def step(
        self, step: int, metrics: Mapping[str, float | None], config: RunConfig | None = None
    ) -> list[Change]:
        """After a training step. `config`: the settings of that step, if they changed."""
        if config is not None:
            self.history.config = config
        self._take_checks(step)
        self.history.add(step, metrics)
        return list(self._look(step))

    def check(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """After an evaluation. It counts from training step `step` on, however late it arrives, so that alarms do not depend
        on timing."""
        self._checks.append((step, metrics))

    def end(self) -> list[Change]:
        """After the evaluation that follows the last step."""
        steps = self.history.steps
        if not steps or not any(step > steps[-1] for step, _ in self._checks):
            return []
        self._take_checks(steps[-1] + 1)
        return list(self._look(steps[-1]))

    def _take_checks(self, until: int) -> None:
        for step, metrics in self._checks:
            if step <= until:
                self.history.add_check(step, metrics)
        self._checks = [(step, metrics) for step, metrics in self._checks if step > until]

    def _look(self, step: int) -> Iterator[Change]:
        for name, rule in RULES.items():
            finding, on = rule(self.history), self.open.get(name)
            if finding is None:
                if on is not None and step - on.seen >= CALM:
                    del self.open[name]
                    yield Change(name, step, None)
                continue
            if on is None:
                self.open[name] = Open(finding, step, step)
                yield Change(name, step, finding, begins=True)
                continue
            finding = finding._replace(since=min(finding.since, on.finding.since))
            louder = finding.level != on.finding.level
            reported = step if louder or step - on.reported >= RENEW else on.reported
            self.open[name] = Open(finding, reported, step)
            if reported == step:
                yield Change(name, step, finding)


def text_of(name: str, finding: Finding) -> str:
    """The text of an alarm: figures, then its effect on the run."""
    return " ".join(filter(None, (finding.details, ALARMS[name].cause, finding.aside)))


def replay(
    reader: Reader,
    config: RunConfig | None = None,
    around: RunLimits | None = None,
    before: int | None = None,
) -> tuple[Watch, list[Change]]:
    """The alarms of a recorded run, as its worker raised them; with `before`, as they were when that step began."""
    found = reader.series()
    watch = Watch(config or reader.config, around)
    for step, metrics in _rows(found["sampled"]):
        if before is None or step <= before:
            watch.check(step, metrics)
    changes: list[Change] = []
    for step, metrics in _rows(found["train"]):
        if before is None or step < before:
            changes += watch.step(step, metrics)
    return watch, changes + (watch.end() if before is None else [])


def _rows(table: Mapping[str, list[Any]]) -> Iterator[tuple[int, dict[str, float | None]]]:
    """A table of columns, row by row."""
    for i, step in enumerate(table["step"]):
        yield step, {name: column[i] for name, column in table.items() if name != "step"}
