"""The samples of a step that illustrate an alarm: at most three, the clearest first, of different groups if possible.

In: an alarm's name and the `StepRecord` at which it was raised. Out: step, group, prompt id and index of samples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.core.config import RunConfig
from workbench.core.types import StepRecord, group_ids
from workbench.diagnose.metrics import TINY_STD
from workbench.record import rollup

Floats = NDArray[np.float64]
MOST = 3


class Seen(NamedTuple):
    """A step's (B,) numbers; NaN where there is none."""

    record: StepRecord
    numbers: rollup.SampleNumbers
    groups: list[rollup.GroupNumbers]
    ids_B: NDArray[np.int64]
    cut_B: NDArray[np.bool_]

    def zero_std(self, side: str) -> NDArray[np.bool_]:
        """(B,) whether the sample's group has no reward spread and is of this side."""
        return np.array([group.zero_std == side for group in self.groups])[self.ids_B]


def samples(name: str, record: StepRecord, config: RunConfig) -> list[dict[str, Any]]:
    """[{"step", "group", "prompt_id", "index"}]: samples that illustrate alarm `name`; [] where none does."""
    pick = PICKS.get(name)
    if pick is None or not record.groups:
        return []
    numbers = rollup.sample_numbers(record, rollup.accuracy_reward(config, record))
    groups = rollup.group_numbers(record, numbers, config)
    cut_B = np.array([rollout.finish_reason == "length" for rollout in record.rollouts()], dtype=bool)
    weight_B = np.asarray(
        pick(Seen(record, numbers, groups, group_ids(record.groups), cut_B)), dtype=np.float64
    )
    starts = np.cumsum([0, *(len(group) for group in record.groups)])
    ids_B = group_ids(record.groups)
    return [
        {
            "step": record.step,
            "group": int(ids_B[i]),
            "prompt_id": record.groups[ids_B[i]].prompt.id,
            "index": int(i - starts[ids_B[i]]),
        }
        for i in best(weight_B, ids_B)
    ]


def best(weight_B: Floats, ids_B: NDArray[np.int64]) -> list[int]:
    """Indices of the samples with the largest weight above 0, of different groups first."""
    order = [int(i) for i in np.argsort(-np.nan_to_num(weight_B, nan=-1.0), kind="stable") if weight_B[i] > 0]
    first: dict[int, int] = {}
    for i in order:
        first.setdefault(int(ids_B[i]), i)
    chosen = list(first.values())[:MOST]
    return chosen + [i for i in order if i not in chosen][: MOST - len(chosen)]


def _wrong_by_reward(seen: Seen) -> Floats:
    """Weight of wrong samples: their reward above the lowest."""
    reward_B = np.nan_to_num(seen.numbers.reward_B, nan=0.0)
    return np.where(seen.numbers.right_B == 0, reward_B - reward_B.min() + 1e-9, 0.0)


def _copies(seen: Seen) -> Floats:
    """Number of other samples of the group with the same text."""
    texts_B = [rollout.text for rollout in seen.record.rollouts()]
    keys = [(int(k), text) for k, text in zip(seen.ids_B, texts_B, strict=True)]
    counts: dict[tuple[int, str], int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return np.array([counts[key] - 1.0 for key in keys])


def _failed(seen: Seen) -> Floats:
    """Number of rewards that failed on a sample."""
    return np.array(
        [sum(value is None and name in score.reasons for name, value in score.values.items())
         for score in seen.record.scores_B], dtype=np.float64
    )  # fmt: skip


def _tiny(seen: Seen) -> Floats:
    """|advantage| of samples in groups whose std is tiny."""
    scored = seen.numbers.reward_B[np.isfinite(seen.numbers.reward_B)]
    scale = max(float(np.ptp(scored)), float(np.abs(scored).max())) if len(scored) else 0.0
    tiny_P = np.array(
        [not group.zero_std and (group.reward_std or 0.0) < TINY_STD * scale for group in seen.groups],
        dtype=bool,
    )
    size_B = (
        np.zeros(len(seen.ids_B)) if seen.record.advantages_B is None else np.abs(seen.record.advantages_B)
    )
    return np.where(tiny_P[seen.ids_B], size_B, 0.0)


def _gap(seen: Seen) -> Floats:
    """Mean |difference of log-probabilities| between sampler and trainer."""
    arrays = seen.record.tokens
    if arrays is None or arrays.policy_logp is None:
        return np.zeros(len(seen.ids_B))
    pairs = zip(arrays.policy_logp, arrays.sampler_logp, strict=True)
    return np.array(
        [float(np.abs(policy - sampler).mean()) if len(policy) else 0.0 for policy, sampler in pairs]
    )


def _long(seen: Seen) -> Floats:
    """Length of wrong samples."""
    return np.where(seen.numbers.right_B == 0, seen.numbers.length_B.astype(np.float64), 0.0)


PICKS: dict[str, Callable[[Seen], Floats]] = {
    "all_wrong": lambda seen: np.where(seen.zero_std("wrong"), seen.numbers.length_B, 0.0),
    "all_right": lambda seen: np.where(seen.zero_std("right"), seen.numbers.length_B, 0.0),
    "tied": lambda seen: np.where(seen.zero_std("tied"), 1.0 + (seen.numbers.right_B == 0), 0.0),
    "noise": _tiny,
    "reward_failures": _failed,
    "hacking": _wrong_by_reward,
    "entropy": lambda seen: 1.0 / (1e-6 + np.nan_to_num(seen.numbers.entropy_B, nan=1e6)),
    "regress": _long,
    "drift": lambda seen: np.nan_to_num(seen.numbers.kl_B, nan=0.0),
    "kl_target": lambda seen: np.nan_to_num(seen.numbers.kl_B, nan=0.0),
    "kl_tail": lambda seen: np.nan_to_num(seen.numbers.kl_B, nan=0.0),
    "frozen": lambda seen: np.where(seen.numbers.right_B == 0, seen.numbers.length_B, 0.0),
    "mismatch": _gap,
    "truncation": lambda seen: np.where(seen.cut_B, seen.numbers.length_B, 0.0),
    "collapse": _copies,
    "long_wrong": _long,
    "non_finite": lambda seen: np.abs(np.nan_to_num(seen.numbers.reward_B, nan=0.0)) + 1e-9,
}
