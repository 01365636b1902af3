"""Per-sample and per-group numbers of one step, computed when it is recorded.

In: a `StepRecord`. Out: (B,) and per-group columns; the writer stores them, diagnose/metrics.py averages them.
Numpy only.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.config import RunConfig
from workbench.core.types import Score, StepRecord, TokenArrays

ZeroStd = Literal["", "right", "wrong", "tied"]
RIGHT = 0.5
"""A completion counts as right from this value of the accuracy reward on."""


class SampleNumbers(NamedTuple):
    """One value a sample, NaN where it was not computed."""

    reward_B: NDArray[np.float64]
    right_B: NDArray[np.float64]
    """1 where the accuracy reward gave at least RIGHT, else 0; NaN where it gave nothing."""
    length_B: NDArray[np.int64]
    logprob_sum_B: NDArray[np.float64]
    """Sequence log-probability under the sampler, nats."""
    kl_B: NDArray[np.float64]
    """Token mean of k3(policy || reference), nats per token."""
    kl_k1_sum_B: NDArray[np.float64]
    """Sum of k1 over the completion, nats: unbiased for KL(policy || reference), may be negative."""
    entropy_B: NDArray[np.float64]
    """Token mean, nats."""
    logprob_change_B: NDArray[np.float64]
    """Sequence log-probability after the update minus before, nats."""


class GroupNumbers(NamedTuple):
    """One group: its rewards, and whether they differ."""

    size: int
    scored: int
    right: int | None
    """How many were right; None where the accuracy reward gave nothing."""
    reward_mean: float | None
    reward_std: float | None
    """By the setting `advantage_std` (ddof 1 or 0); 0 for a single scored sample."""
    gradient_share: float | None
    zero_std: ZeroStd


def accuracy_reward(config: RunConfig, record: StepRecord | None = None) -> str:
    """Name of the reward that decides right or wrong: the record's own, else `eval_reward`, else `correct` where the
    run has it, else its first reward; '' without rewards."""
    names = [spec.name for spec in config.rewards]
    recorded = record.accuracy_reward if record else ""
    return (
        recorded
        or (config.eval_reward or "").rpartition(":")[2]
        or ("correct" if "correct" in names else next(iter(names), ""))
    )


def is_right(score: Score, name: str) -> bool | None:
    """Whether reward `name` was at least RIGHT; None where it gave nothing."""
    value = score.values.get(name)
    return None if value is None or not np.isfinite(value) else bool(value >= RIGHT)


def sample_numbers(record: StepRecord, accuracy: str) -> SampleNumbers:
    """The (B,) columns of a step. `accuracy`: name of the reward that decides right or wrong."""
    rollouts = list(record.rollouts())
    right = [is_right(score, accuracy) for score in record.scores_B]
    length_B = np.array([rollout.length for rollout in rollouts], dtype=np.int64)
    tokens = record.tokens
    unknown = np.full(len(rollouts), np.nan)
    kl, kl_k1_sum, entropy, logprob_change = unknown, unknown, unknown, unknown
    if tokens is not None:
        policy_N = joined(policy_logp(tokens))
        if tokens.reference_logp is not None:
            d_N = joined(tokens.reference_logp) - policy_N
            kl, kl_k1_sum = _mean(k3(d_N), length_B), -_sum(d_N, length_B)
        if tokens.entropy is not None:
            entropy = _mean(joined(tokens.entropy), length_B)
        if tokens.after_logp is not None:
            logprob_change = _sum(joined(tokens.after_logp) - policy_N, length_B)
    return SampleNumbers(
        reward_B=np.array(
            [np.nan if score.reward is None else score.reward for score in record.scores_B], float
        ),
        right_B=np.array([np.nan if value is None else float(value) for value in right], float),
        length_B=length_B,
        logprob_sum_B=_sum(joined([rollout.logprobs for rollout in rollouts]), length_B),
        kl_B=kl,
        kl_k1_sum_B=kl_k1_sum,
        entropy_B=entropy,
        logprob_change_B=logprob_change,
    )


def group_numbers(record: StepRecord, numbers: SampleNumbers, config: RunConfig) -> list[GroupNumbers]:
    """The per-group columns of a step, in the order of `record.groups`."""
    found, start = [], 0
    ddof = 1 if config.advantage_std == "sample" else 0
    for group in record.groups:
        here = slice(start, start + len(group))
        start += len(group)
        rewards = numbers.reward_B[here][np.isfinite(numbers.reward_B[here])]
        known = numbers.right_B[here][np.isfinite(numbers.right_B[here])]
        share = None if record.gradient_share_B is None else float(record.gradient_share_B[here].sum())
        found.append(
            GroupNumbers(
                size=len(group),
                scored=len(rewards),
                right=int(known.sum()) if len(known) else None,
                reward_mean=float(rewards.mean()) if len(rewards) else None,
                reward_std=float(rewards.std(ddof=ddof))
                if len(rewards) > 1
                else 0.0
                if len(rewards)
                else None,
                gradient_share=share,
                zero_std=zero_std_side(rewards, known),
            )
        )
    return found


def zero_std_side(rewards: NDArray[np.float64], right: NDArray[np.float64]) -> ZeroStd:
    """What all samples of a group without reward spread are: right, wrong, or neither (tied); '' where rewards
    differ."""
    if len(rewards) > 1 and not advantages.tied(rewards):
        return ""
    if len(right) and right.all():
        return "right"
    return "wrong" if len(right) and not right.any() else "tied"


def policy_logp(tokens: TokenArrays) -> list[NDArray[np.float32]]:
    """The trainer's log-probabilities before the update; the sampler's where no separate forward pass was made."""
    return tokens.sampler_logp if tokens.policy_logp is None else tokens.policy_logp


def k3(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) k3 = e^d - d - 1 with d = log reference - log policy: unbiased for KL(policy || reference), never
    negative (Schulman 2020)."""
    return np.expm1(d) - d


def joined(values: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """(N,) the tokens of all samples in one float64 array."""
    return np.concatenate(values).astype(np.float64) if values else np.zeros(0)


def _sum(values_N: NDArray[np.float64], length_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B,) sums over each sample's tokens."""
    sample_N = np.repeat(np.arange(len(length_B)), length_B)
    return np.bincount(sample_N, weights=values_N, minlength=len(length_B)).astype(np.float64)


def _mean(values_N: NDArray[np.float64], length_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B,) means over each sample's tokens; NaN for an empty completion."""
    return np.where(length_B > 0, _sum(values_N, length_B) / np.maximum(length_B, 1), np.nan)
