"""What another reward would do to a run, from answers that are there already: no model, no GPU.

In: the same answers scored twice (NaN = absent), their groups, and a group size. Out: dead groups, signal, changed winners, spread, and
who is pushed which way. The advantages are those of `advantages.compute`, as in the update.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.variants import Baseline, Scale, Std

DRAWS = 48
"""Groups of the wanted size drawn from each group there is."""
_MOST = 400_000
"""Answers drawn in all; with many groups each is drawn less often."""


class Side(NamedTuple):
    """One of the two rewards. Means are over groups drawn at the wanted size."""

    dead: float
    """Share of groups in which every answer scores the same."""
    signal: float
    """Mean |advantage| of an answer, dead groups counted as 0."""
    std_P: NDArray[np.float64]
    """Mean std of the reward within each group."""
    dead_P: NDArray[np.float64]
    """Each group's share of draws that are dead."""


class Forecast(NamedTuple):
    """Both rewards at one group size."""

    size: int
    exact: bool
    """Every group has this size: these are the recorded groups, nothing was drawn."""
    stretched: bool
    """Some groups are smaller than the size, so their answers were drawn with replacement: rare ones are missing."""
    old: Side | None
    new: Side
    winners: float | None
    """Share of groups in which no answer that is best under the old reward is best under the new one."""


def forecast(
    old_B: NDArray[np.float64] | None,
    new_B: NDArray[np.float64],
    group_ids_B: NDArray[np.int64],
    size: int,
    *,
    scale: Scale = "group",
    std: Std = "sample",
    eps: float = 1e-4,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> Forecast:
    """Draw groups of `size` from the groups there are, and give both rewards the same draws."""
    groups = _members(group_ids_B)
    sizes = {len(group) for group in groups}
    exact = sizes == {size}
    if exact:
        draws, index = 1, np.concatenate(groups)
    else:
        draws = max(2, min(DRAWS, _MOST // max(1, size * len(groups))))
        index = _draw(groups, size, draws, np.random.default_rng(seed))
    drawn = np.repeat(np.arange(len(groups) * draws), size)
    how: dict[str, Any] = {"scale": scale, "std": std, "eps": eps, "baseline": baseline}
    sides = [
        _side(rewards_B[index], drawn, draws, how) for rewards_B in (old_B, new_B) if rewards_B is not None
    ]
    winners = None
    if old_B is not None:
        shape = (len(groups) * draws, size)
        winners = float(np.mean(changed_winners(old_B[index].reshape(shape), new_B[index].reshape(shape))))
    return Forecast(
        size, exact, any(n < size for n in sizes), sides[0] if old_B is not None else None, sides[-1], winners
    )


def changed_winners(old_P_G: NDArray[np.float64], new_P_G: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(P,) whether none of the answers that are best under the old reward is best under the new one. Where
    either has scored nothing, nobody has won."""
    known_P = np.isfinite(old_P_G).any(axis=1) & np.isfinite(new_P_G).any(axis=1)
    shared_P = (_best(old_P_G) & _best(new_P_G)).any(axis=1)
    return np.asarray(known_P & ~shared_P, dtype=np.bool_)


def ranks(rewards: Sequence[float | None]) -> list[int | None]:
    """Places within a group, 1 for the best, equal rewards sharing theirs; None where a reward is absent."""
    known = [value for value in rewards if value is not None]
    return [None if value is None else 1 + sum(other > value for other in known) for value in rewards]


def wrongly_pushed(advantages_B: NDArray[np.float64], right_B: NDArray[np.float64]) -> tuple[int, int]:
    """How many wrong answers get a positive advantage, and how many right ones a negative. `right_B`: 1, 0, NaN unknown."""
    return int(np.sum((right_B == 0) & (advantages_B > 0))), int(np.sum((right_B == 1) & (advantages_B < 0)))


def _side(rewards_B: NDArray[np.float64], ids_B: NDArray[np.int64], draws: int, how: dict[str, Any]) -> Side:
    found = advantages.compute(rewards_B, ids_B, **how)
    dead_P = np.asarray(found.zero_std_P, dtype=np.float64).reshape(-1, draws).mean(axis=1)
    std_P = np.asarray(found.std_P, dtype=np.float64).reshape(-1, draws).mean(axis=1)
    return Side(float(dead_P.mean()), float(np.abs(found.advantages_B).mean()), std_P, dead_P)


def _best(rewards_P_G: NDArray[np.float64]) -> NDArray[np.bool_]:
    filled = np.where(np.isfinite(rewards_P_G), rewards_P_G, -np.inf)
    return np.asarray(
        np.isfinite(rewards_P_G) & (filled >= filled.max(axis=1, keepdims=True) - 1e-9), dtype=np.bool_
    )


def _members(group_ids_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Places of each group's answers, groups in ascending order of their ids."""
    order_B = np.argsort(group_ids_B, kind="stable")
    cuts = np.flatnonzero(np.diff(group_ids_B[order_B])) + 1
    return np.split(order_B, cuts)


def _draw(
    groups: Sequence[NDArray[np.int64]], size: int, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flat places of (group, draw, answer): without replacement where a group has enough answers."""
    found = []
    for group in groups:
        if len(group) >= size:
            picked = np.argsort(rng.random((draws, len(group))), axis=1)[:, :size]
        else:
            picked = rng.integers(0, len(group), (draws, size))
        found.append(group[picked].ravel())
    return np.concatenate(found)
