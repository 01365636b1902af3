"""One trial's arrays: what each function said about each answer, and what it comes to with weights.

In: scores as they arrive. Out: total rewards and advantages of the new and of the old reward.
"""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.types import Score
from workbench.rewards.api.outcome import is_failure
from workbench.rewards.runtime import worker_group
from workbench.view.lab.drafts import RewardPart
from workbench.view.lab.trial_samples import TrialSamples

PRINTED = 2000
"""Characters of what a reward printed that are kept, its end."""
RECORDED = "recorded"
"""What the rewards of the run itself are called."""


class Scored(NamedTuple):
    """What the functions of some code say about some samples, whatever their weights."""

    values_B: dict[str, NDArray[np.float64]]
    reasons: dict[str, dict[int, str]]
    printed: str
    again: bool | None
    """Whether a second visit gave the same; None: not asked."""
    each: float
    """Seconds for one answer, processes warm."""
    done: int
    """Answers scored; fewer than there are where it was ended."""
    ended: str = ""
    """Why it was ended early."""


class Tally:
    """What has been scored so far."""

    def __init__(self, names: Iterable[str], timeout: float) -> None:
        self.timeout = timeout
        self.values: dict[str, list[float]] = {name: [] for name in names}
        self.reasons: dict[str, dict[int, str]] = {name: {} for name in self.values}
        self.printed = ""
        self.done = 0
        self.started = time.perf_counter()

    def take(self, scores: Sequence[Score], printed: str) -> None:
        """More scores, in order, and the end of what was printed meanwhile."""
        self.printed = (self.printed + printed)[-PRINTED:]
        for score in scores:
            for name, column in self.values.items():
                value = score.values[name]
                column.append(np.nan if value is None else value)
                if value is None:
                    self.reasons[name][self.done] = score.reasons[name]
            self.done += 1

    def lost(self) -> str:
        """Why the rest need not be tried: a call hung, or took its process along."""
        said = (text for reasons in self.reasons.values() for text in reasons.values())
        return next((text for text in said if worker_group.is_lost_call(text, self.timeout)), "")

    def state(self, ended: str, again: bool | None, each: float | None) -> Scored:
        """All of it as it stands."""
        values_B = {name: np.array(column) for name, column in self.values.items()}
        reasons = {name: dict(said) for name, said in self.reasons.items()}
        if each is None:
            each = (time.perf_counter() - self.started) / max(1, self.done)
        return Scored(values_B, reasons, self.printed, again, each, self.done, ended)


@dataclass
class Trial:
    """One code on some samples, beside another one."""

    samples: TrialSamples
    parts: list[RewardPart]
    new: Scored
    old_B: NDArray[np.float64] | None
    old_words: str
    """What the old reward is called: v2, or the run's own."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def new_B(self) -> NDArray[np.float64]:
        """Total reward of each answer, NaN where it was not scored."""
        clip = self.samples.config.reward_clip
        return padded(total(self.new, self.parts, clip), sum(self.samples.sizes))

    @cached_property
    def new_A(self) -> NDArray[np.float64]:
        """Advantage of each answer under what is tried."""
        if self.samples.config.multi_objective_aggregation == "sum_then_normalize":
            return self.samples.asked(self.new_B[:, None], np.ones(1))
        counting = [part for part in self.parts if part.enabled]
        if not counting:
            return np.zeros(sum(self.samples.sizes))
        columns = [padded(self.new.values_B[part.name], sum(self.samples.sizes)) for part in counting]
        return self.samples.asked(np.column_stack(columns), np.array([part.weight for part in counting]))

    @cached_property
    def old_A(self) -> NDArray[np.float64] | None:
        """The same under what it is compared with: as recorded, where that is the run."""
        if self.old_B is None:
            return None
        if self.old_words == RECORDED and self.samples.advantage_B is not None:
            return np.nan_to_num(self.samples.advantage_B)
        return self.samples.asked(self.old_B[:, None], np.ones(1))

    @property
    def tried(self) -> int:
        """Groups that were scored whole."""
        return int(np.searchsorted(np.cumsum(self.samples.sizes), self.new.done, side="right"))


def total(scored: Scored, parts: Sequence[RewardPart], clip: float | None) -> NDArray[np.float64]:
    """(B,) weighted sum of what counts, clipped as the run clips it; NaN where all of that is absent."""
    counting = [part for part in parts if part.enabled]
    if not counting:
        return np.zeros(0)
    columns = np.column_stack([scored.values_B[part.name] for part in counting])
    total_B = np.asarray(
        advantages.combine(columns, np.array([part.weight for part in counting])), dtype=np.float64
    )
    return total_B if clip is None else np.clip(total_B, -clip, clip)


def padded(values_B: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """With NaN for what was not tried."""
    return np.concatenate([values_B, np.full(count - len(values_B), np.nan)])


def failures(scored: Scored) -> int:
    """Answers for which some function gave nothing without having chosen to."""
    return len({i for said in scored.reasons.values() for i, text in said.items() if is_failure(text)})
