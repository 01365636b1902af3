"""One trial's arrays: values of each function for each sample, total rewards, advantages.

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
"""Characters kept of what a reward printed: the end of it."""
RECORDED = "recorded"
"""Name of the run's own recorded rewards."""


class Scored(NamedTuple):
    """Values of the functions of some code for some samples; independent of weights."""

    values_B: dict[str, NDArray[np.float64]]
    reasons: dict[str, dict[int, str]]
    printed: str
    again: bool | None
    """Whether scoring a second time gave the same; None: not tried."""
    each: float
    """Seconds per sample, processes running."""
    done: int
    """Samples scored; fewer than there are where scoring was stopped."""
    ended: str = ""
    """Why scoring was stopped early."""
    guessed: Sequence[str] = ()
    """What was guessed about the functions from their code, in sentences."""


class Tally:
    """Collects scores as they arrive."""

    def __init__(self, names: Iterable[str], timeout: float, guessed: Sequence[str] = ()) -> None:
        self.timeout = timeout
        self.guessed = guessed
        self.values: dict[str, list[float]] = {name: [] for name in names}
        self.reasons: dict[str, dict[int, str]] = {name: {} for name in self.values}
        self.printed = ""
        self.done = 0
        self.started = time.perf_counter()

    def take(self, scores: Sequence[Score], printed: str) -> None:
        """Add more scores, in order, and what was printed meanwhile."""
        self.printed = (self.printed + printed)[-PRINTED:]
        for score in scores:
            for name, column in self.values.items():
                value = score.values[name]
                column.append(np.nan if value is None else value)
                if value is None:
                    self.reasons[name][self.done] = score.reasons[name]
            self.done += 1

    def lost(self) -> str:
        """Why the rest is not scored: a call hung, or ended its process. '' where neither happened."""
        texts = (text for reasons in self.reasons.values() for text in reasons.values())
        return next((text for text in texts if worker_group.is_lost_call(text, self.timeout)), "")

    def state(self, ended: str, again: bool | None, each: float | None) -> Scored:
        """Everything scored so far."""
        values_B = {name: np.array(column) for name, column in self.values.items()}
        reasons = {name: dict(texts) for name, texts in self.reasons.items()}
        if each is None:
            each = (time.perf_counter() - self.started) / max(1, self.done)
        return Scored(values_B, reasons, self.printed, again, each, self.done, ended, self.guessed)


@dataclass
class Trial:
    """Some code's scores of some samples, beside those of other code."""

    samples: TrialSamples
    parts: list[RewardPart]
    scored: Scored
    old_rewards_B: NDArray[np.float64] | None
    old_name: str
    """Name of the old reward: v2, or `recorded`."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def new_rewards_B(self) -> NDArray[np.float64]:
        """(B,) total reward of each sample, NaN where it was not scored."""
        clip = self.samples.config.reward_clip
        return padded(total(self.scored, self.parts, clip), sum(self.samples.sizes))

    @cached_property
    def new_advantages_B(self) -> NDArray[np.float64]:
        """(B,) advantages under the reward that is tried."""
        if self.samples.config.multi_objective_aggregation == "sum_then_normalize":
            return self.samples.advantages(self.new_rewards_B[:, None], np.ones(1))
        counting = [part for part in self.parts if part.enabled]
        if not counting:
            return np.zeros(sum(self.samples.sizes))
        columns = [padded(self.scored.values_B[part.name], sum(self.samples.sizes)) for part in counting]
        return self.samples.advantages(np.column_stack(columns), np.array([part.weight for part in counting]))

    @cached_property
    def old_advantages_B(self) -> NDArray[np.float64] | None:
        """(B,) advantages under the reward it is compared with: the recorded ones where that is the run's own."""
        if self.old_rewards_B is None:
            return None
        if self.old_name == RECORDED and self.samples.advantage_B is not None:
            return np.nan_to_num(self.samples.advantage_B)
        return self.samples.advantages(self.old_rewards_B[:, None], np.ones(1))

    @property
    def scored_groups(self) -> int:
        """Number of completely scored groups."""
        return int(np.searchsorted(np.cumsum(self.samples.sizes), self.scored.done, side="right"))


def total(scored: Scored, parts: Sequence[RewardPart], clip: float | None) -> NDArray[np.float64]:
    """(B,) weighted sum of the functions that count, clipped as in the run; NaN where all of their values are absent."""
    counting = [part for part in parts if part.enabled]
    if not counting:
        return np.zeros(0)
    columns = np.column_stack([scored.values_B[part.name] for part in counting])
    total_B = np.asarray(
        advantages.combine(columns, np.array([part.weight for part in counting])), dtype=np.float64
    )
    return total_B if clip is None else np.clip(total_B, -clip, clip)


def padded(values_B: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count,) the values, then NaN for samples that were not scored."""
    return np.concatenate([values_B, np.full(count - len(values_B), np.nan)])


def failures(scored: Scored) -> int:
    """Number of samples for which some function failed to give a value."""
    return len({i for texts in scored.reasons.values() for i, text in texts.items() if is_failure(text)})
