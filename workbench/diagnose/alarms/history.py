"""Input and output of an alarm's rule: a run's metrics up to its newest step, and what a rule finds in them.

In: metrics of steps and evaluations, oldest first. Out: `History`, with the queries that rules share.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from workbench.core.config import RunConfig
from workbench.core.glossary import ALARMS
from workbench.diagnose.alarms.remedies import RunLimits
from workbench.diagnose.verdict import Move

Level = Literal["info", "warning", "critical"]
Column = list[float | None]
LONGEST_STRETCH = 1000
"""Most steps that `held` goes back for the beginning of a condition."""
GOOD = 0.8
"""From this accuracy on, low entropy and similar completions are expected."""
BETTER = 0.1
"""A gain in accuracy that fluctuation does not explain."""
PATIENCE = 6
"""Steps that a dip in accuracy may last."""
EDGE = 3
"""Steps whose mean is a start or a current value."""


class Finding(NamedTuple):
    """What a rule finds at the newest step."""

    level: Level
    claim: str
    """At most six words."""
    details: str
    """Figures from start to now; the cause from alarms.toml follows them."""
    since: int
    figures: dict[str, float]
    remedies: list[dict[str, Any]]
    aside: str = ""
    """A reason why it may be harmless."""


class Check(NamedTuple):
    """A sampled held-out evaluation: accuracy with its 95 % interval, after `step` finished steps."""

    step: int
    accuracy: float
    low: float
    high: float


class Excess(NamedTuple):
    """A metric above the limit of an alarm."""

    since: int
    """The step since which it has been, without a break."""
    value: float
    """Now."""
    limit: float
    far: bool
    """Above the critical limit too."""


class History:
    """A run's metrics up to its newest step. `config`: the settings now in force."""

    def __init__(self, config: RunConfig, around: RunLimits | None = None) -> None:
        self.config = config
        self.around = around or RunLimits()
        self.steps: list[int] = []
        self.checks: list[Check] = []
        self._thrived: list[bool] = []
        self._columns: dict[str, Column] = {}

    def add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Appends the metrics of the next step."""
        for name in metrics.keys() - self._columns.keys():
            self._columns[name] = [None] * len(self.steps)
        self.steps.append(step)
        for name, column in self._columns.items():
            column.append(metrics.get(name))
        self._thrived.append(self.thriving)

    def add_check(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Appends a held-out evaluation, if it is a sampled one."""
        accuracy = metrics.get("heldout/sampled/accuracy")
        if accuracy is None:
            return
        low, high = (metrics.get(f"heldout/sampled/accuracy_{end}") for end in ("low", "high"))
        self.checks.append(
            Check(step, accuracy, accuracy if low is None else low, accuracy if high is None else high)
        )

    @property
    def names(self) -> list[str]:
        """Every metric that was recorded."""
        return list(self._columns)

    def column(self, name: str) -> Column:
        """One entry a step; empty where the metric was never recorded."""
        return self._columns.get(name, [])

    def start(self, name: str) -> float | None:
        """Mean over the first steps that have it."""
        return _mean([value for value in self.column(name)[: 4 * EDGE] if value is not None][:EDGE])

    def now(self, name: str, back: int = 0) -> float | None:
        """Mean over the newest steps, or over those `back` steps before."""
        column = self.column(name)
        end = len(column) - back
        return (
            _mean([value for value in column[max(0, end - EDGE) : end] if value is not None])
            if end > 0
            else None
        )

    def move(self, name: str, window: int | None = None) -> Move | None:
        """From its start, or from `window` steps ago, to now."""
        first = self.start(name) if window is None else self.now(name, window)
        last = self.now(name)
        return None if first is None or last is None else Move(first, last)

    def held(self, test: Callable[[int], bool], steps: float) -> int | None:
        """The step since which `test(row)` has held without a break, if for at least `steps` steps."""
        row = len(self.steps)
        oldest = max(0, row - LONGEST_STRETCH)
        while row > oldest and test(row - 1):
            row -= 1
        return self.steps[row] if len(self.steps) - row >= steps else None

    def above(self, name: str, limit: float, steps: float) -> int | None:
        """`held` for a metric above a limit; a missing value is not above."""
        column = self.column(name)
        return self.held(
            lambda row: column != [] and (value := column[row]) is not None and value > limit, steps
        )

    def excess(self, name: str, alarm: str) -> "Excess | None":
        """How far a metric is above an alarm's limit `warn`, if it has been for the alarm's number of steps."""
        limit = limits(alarm)
        since, value = self.above(name, limit["warn"], limit["steps"]), self.now(name)
        if since is None or value is None:
            return None
        far = "critical" in limit and self.above(name, limit["critical"], limit["steps"]) is not None
        return Excess(since, value, limit["warn"], far)

    def below(self, name: str, limit: float, steps: float) -> int | None:
        """`held` for a metric below a limit."""
        column = self.column(name)
        return self.held(
            lambda row: column != [] and (value := column[row]) is not None and value < limit, steps
        )

    @property
    def truth(self) -> Move | None:
        """Accuracy at the start and now: held-out where there are two evaluations, else in training."""
        if len(self.checks) > 1:
            return Move(self.checks[0].accuracy, self.checks[-1].accuracy)
        return self.move("accuracy")

    @property
    def peak(self) -> tuple[int, float]:
        """Step and value of the best training accuracy; the first step and 0 where none was recorded."""
        backs = range(0, len(self.steps), EDGE)
        means = [
            (mean, self.steps[-1 - back])
            for back in backs
            if (mean := self.now("accuracy", back)) is not None
        ]
        best, step = max(means, default=(0.0, self.steps[0]))
        return step, best

    @property
    def thriving(self) -> bool:
        """Whether accuracy is good, or has risen and kept at least half of its gain: low entropy or duplicates are then
        part of learning."""
        right, trained = self.truth, self.move("accuracy")
        if right is None:
            return False
        if right.last >= GOOD or trained is None:
            return right.last >= GOOD
        best = self.peak[1]
        keeps = trained.gain >= (best - trained.first) / 2
        return max(right.gain, trained.gain) > BETTER and keeps

    @property
    def faltering(self) -> bool:
        """Whether it has not been `thriving` in any of the last PATIENCE steps, so that a short dip raises no alarm."""
        return not any(self._thrived[-PATIENCE:])


def limits(name: str) -> Mapping[str, float]:
    """The limits of an alarm, from alarms.toml."""
    return ALARMS[name].limits


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
