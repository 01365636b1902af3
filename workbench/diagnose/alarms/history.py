"""What an alarm's rule looks at: a run's figures step by step as far as it has come, and what it raises.

In: metrics of steps and held-out checks, oldest first. Out: `History`, with the questions that rules ask.
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
"""Steps that are looked back at most for the beginning of what goes on."""
GOOD = 0.8
"""With this share right, sure and similar answers are what one wants."""
BETTER = 0.1
"""A gain in the share of right answers that no fluctuation explains."""
PATIENCE = 6
"""Steps that a dip may last."""
EDGE = 3
"""Steps that make a start or a now."""


class Finding(NamedTuple):
    """What a rule has to say about the newest step."""

    level: Level
    claim: str
    """At most six words."""
    said: str
    """From-to figures; the cause follows them, from the glossary."""
    since: int
    figures: dict[str, float]
    remedies: list[dict[str, Any]]
    aside: str = ""
    """What speaks against taking it too seriously."""


class Check(NamedTuple):
    """A held-out check, sampled: accuracy with its 95 % interval, after `step` finished steps."""

    step: int
    accuracy: float
    low: float
    high: float


class Excess(NamedTuple):
    """A metric above the limit of an alarm."""

    since: int
    """The step from which on it was, without a break."""
    value: float
    """Now."""
    limit: float
    far: bool
    """Above the critical limit too."""


class History:
    """A run's figures up to its newest step. `config`: the settings as they are now."""

    def __init__(self, config: RunConfig, around: RunLimits | None = None) -> None:
        self.config = config
        self.around = around or RunLimits()
        self.steps: list[int] = []
        self.checks: list[Check] = []
        self._thrived: list[bool] = []
        self._columns: dict[str, Column] = {}

    def add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """The figures of the next step."""
        for name in metrics.keys() - self._columns.keys():
            self._columns[name] = [None] * len(self.steps)
        self.steps.append(step)
        for name, column in self._columns.items():
            column.append(metrics.get(name))
        self._thrived.append(self.thriving)

    def add_check(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """A held-out check, where it is a sampled one."""
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
        """The step since which `test(row)` holds without a break, if that is for at least so many steps."""
        row = len(self.steps)
        oldest = max(0, row - LONGEST_STRETCH)
        while row > oldest and test(row - 1):
            row -= 1
        return self.steps[row] if len(self.steps) - row >= steps else None

    def above(self, name: str, limit: float, steps: float) -> int | None:
        """`held` for a metric above a limit; where it was not recorded it is not."""
        column = self.column(name)
        return self.held(
            lambda row: column != [] and (value := column[row]) is not None and value > limit, steps
        )

    def excess(self, name: str, alarm: str) -> "Excess | None":
        """How far a metric is above what an alarm allows, if it has been for as many steps as that asks for."""
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
        """Share right at the start and now: of held-out problems where there are two checks, else in training."""
        if len(self.checks) > 1:
            return Move(self.checks[0].accuracy, self.checks[-1].accuracy)
        return self.move("accuracy")

    @property
    def peak(self) -> tuple[int, float]:
        """When the share of right training answers was best, and how good; the first step where it was never recorded."""
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
        """Whether the answers are good, or have become better and keep at least half of that: what would be an alarm
        elsewhere may then be learning itself."""
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
        """Whether it has not been thriving for a while: a dip that passes is no reason to speak up."""
        return not any(self._thrived[-PATIENCE:])


def limits(name: str) -> Mapping[str, float]:
    """The numbers an alarm is judged by."""
    return ALARMS[name].limits


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
