"""Scoring recorded samples again with other rewards, for what-if and the command line. No data frames here.

In: plain rows of recorded samples and saved rewards. Out: arrays in row order, NaN where a value is absent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.rewards import wire
from workbench.rewards.pool import RewardPool
from workbench.rewards.registry import DEFAULT_TIMEOUT, RewardSource


class Rescored(NamedTuple):
    """New values of recorded samples."""

    reward_B: NDArray[np.float64]
    """Weighted sum of the rewards that count; NaN where all are absent."""
    values_B: dict[str, NDArray[np.float64]]
    """Each reward's own values."""
    reasons: dict[str, dict[int, str]]
    """For each reward: row number to the reason why its value is absent."""
    error_rate: dict[str, float]


def rescore(
    rows: Iterable[Mapping[str, Any]],
    sources: Sequence[RewardSource],
    *,
    workers: int = 2,
    timeout: float = DEFAULT_TIMEOUT,
    reward_clip: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Score rows (see wire.Row) in order; neighbours with one `group` key are siblings.

    Raises RewardError where a reward cannot be loaded or a row has no completion.
    """
    groups = wire.of_rows(rows)
    with RewardPool(sources, workers, timeout, reward_clip=reward_clip) as pool:
        scores = pool.score_wire(groups, progress=progress)
        names = [source.name for source in sources]
        return Rescored(
            reward_B=_array(score.reward for score in scores),
            values_B={name: _array(score.values[name] for score in scores) for name in names},
            reasons={
                name: {row: score.reasons[name] for row, score in enumerate(scores) if name in score.reasons}
                for name in names
            },
            error_rate=pool.error_rate,
        )


def _array(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
