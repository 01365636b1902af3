"""What another reward would do to a run, from recorded completions: no model, no GPU.

In: the same completions scored twice (NaN = absent), their groups, and a group size. Out: groups without reward spread, mean
|advantage|, changed winners. The advantages are those of `advantages.compute`, as in the update.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.variants import Baseline, Scale, Std

DRAWS = 48
"""Groups of the requested size drawn from each recorded group."""
_MOST = 400_000
"""Completions drawn in all; with many groups fewer draws are made from each."""


class Side(NamedTuple):
    """One of the two rewards. Means are over the drawn groups."""

    dead: float
    """Share of groups in which every completion scores the same."""
    signal: float
    """Mean |advantage| of a completion, 0 in groups without reward spread."""
    std_P: NDArray[np.float64]
    """(P,) mean std of the reward within each group."""
    dead_P: NDArray[np.float64]
    """(P,) each group's share of draws without reward spread."""


class Forecast(NamedTuple):
    """Both rewards at one group size."""

    size: int
    exact: bool
    """Every recorded group has this size, so none was drawn."""
    stretched: bool
    """Some groups are smaller, so their completions were drawn with replacement: rare ones are missing."""
    old: Side | None
    new: Side
    winners: float | None
    """Share of groups in which no completion that is best under the old reward is best under the new one."""


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
    """Draws groups of `size` from the recorded groups, the same for both (B,) rewards. The advantage settings are those of
    `advantages.compute`."""
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
    """(P,) whether no completion that is best under the old reward is best under the new one; False where either reward
    scored none. Both arguments (P, G), NaN = absent."""
    known_P = np.isfinite(old_P_G).any(axis=1) & np.isfinite(new_P_G).any(axis=1)
    shared_P = (_best(old_P_G) & _best(new_P_G)).any(axis=1)
    return np.asarray(known_P & ~shared_P, dtype=np.bool_)


def ranks(rewards: Sequence[float | None]) -> list[int | None]:
    """(G,) places within a group, 1 for the best, the same for equal rewards; None where a reward is absent."""
    known = [value for value in rewards if value is not None]
    return [None if value is None else 1 + sum(other > value for other in known) for value in rewards]


def wrongly_pushed(advantages_B: NDArray[np.float64], right_B: NDArray[np.float64]) -> tuple[int, int]:
    """Number of wrong completions with a positive advantage, and of right ones with a negative. Both (B,); `right_B`: 1, 0, NaN
    unknown."""
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
    """Indices of each group's completions, groups in ascending order of their ids."""
    order_B = np.argsort(group_ids_B, kind="stable")
    cuts = np.flatnonzero(np.diff(group_ids_B[order_B])) + 1
    return np.split(order_B, cuts)


def _draw(
    groups: Sequence[NDArray[np.int64]], size: int, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flat indices of (group, draw, completion): without replacement where a group is large enough."""
    found = []
    for group in groups:
        if len(group) >= size:
            picked = np.argsort(rng.random((draws, len(group))), axis=1)[:, :size]
        else:
            picked = rng.integers(0, len(group), (draws, size))
        found.append(group[picked].ravel())
    return np.concatenate(found)
