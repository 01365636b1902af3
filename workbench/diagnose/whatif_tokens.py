"""What-if for tokens: other clip ranges and losses, over the steps whose token arrays are kept.

In: a step's token arrays and advantages, and an objective. Out: clip fractions and gradient shares. The gradients
are d(loss)/d(log-prob) of `token_grads.loss_grads`, called with numpy. Axes: B samples, T tokens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages, token_grads, update_stats
from workbench.algorithm.token_grads import Objective
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.record.arrays import Floats
from workbench.record.tokens import SampleTokens

TOKEN_SETTINGS = (
    "loss_type", "importance_sampling_level", "epsilon", "epsilon_high", "delta", "dual_clip",
    "sapo_temperature_pos", "sapo_temperature_neg",
)  # fmt: skip
"""Settings whose effect needs each token's log-probabilities."""


class Batch(NamedTuple):
    """The padded arrays of one step, (B, T): a mask of loss tokens, and log-probabilities of the sampled tokens."""

    mask_B_T: Floats
    policy_B_T: Floats
    """The trainer's, before the step's first update."""
    reference_B_T: Floats | None
    sampler_B_T: Floats
    after_B_T: Floats | None
    """Under the updated policy; None where the step has no post-update log-probabilities (`probe_every`)."""
    group_B: NDArray[np.int64]
    """(B,) group ids."""


class TokenView(NamedTuple):
    """Clip fractions and gradient shares of a step under one objective."""

    clipped_low: float | None
    """Share of loss tokens that a further pass on this batch would clip from below: ratio after / before update under
    1 - epsilon with a negative advantage. None without post-update log-probabilities."""
    clipped_high: float | None
    """The same from above: ratio over 1 + epsilon_high with a positive advantage."""
    longer_half: float
    """Gradient share of the completions longer than the median."""
    share_B: Floats
    """(B,) each sample's share of the gradient of the first pass, sums to 1."""


def batch(
    tokens_B: Sequence[SampleTokens], group_B: NDArray[np.int64], excluded_B: NDArray[np.bool_]
) -> Batch:
    """Pads a step's arrays to (B, T). `excluded_B`: completions that are not part of the loss (truncated ones)."""
    lengths = np.array([len(found.token_ids) for found in tokens_B])
    mask_B_T = (np.arange(max(1, lengths.max(initial=1))) < lengths[:, None]) & ~excluded_B[:, None]

    def padded(name: str) -> Floats | None:
        if any(found.arrays[name] is None for found in tokens_B):
            return None
        out = np.zeros(mask_B_T.shape)
        for row, found in zip(out, tokens_B, strict=True):
            values: Any = found.arrays[name]
            row[: len(values)] = values
        return out

    sampler = padded("sampler_logp")
    if sampler is None:
        raise ValueError("token arrays without the sampler's log-probabilities")
    policy = padded("policy_logp")
    return Batch(
        mask_B_T.astype(np.float64),
        sampler if policy is None else policy,
        padded("reference_logp"),
        sampler,
        padded("after_logp"),
        group_B,
    )


def view(found: Batch, advantages_B: Floats, config: RunConfig) -> TokenView:
    """The objective of these settings on a step with (B,) advantages. Raises ConfigError for a KL penalty where no
    reference log-probabilities were recorded."""
    if config.beta and config.kl_in == "loss" and found.reference_B_T is None:
        problem = f"beta = {config.beta:g} needs each token's reference, which this run did not record (record_kl was off)."
        raise ConfigError(problem, {"beta": problem})
    objective = Objective.of(config)
    lengths_B = found.mask_B_T.sum(axis=1)
    counts_B = advantages.prompt_weights(found.group_B, lengths_B)
    normalizer = token_grads.normalizer(lengths_B, found.group_B, sample_weights_B=counts_B)

    def at(logp_B_T: Floats) -> token_grads.TokenGrads:
        return token_grads.loss_grads(
            logp_B_T, found.policy_B_T, found.reference_B_T, found.sampler_B_T, advantages_B, found.mask_B_T,
            objective, normalizer,
        )  # fmt: skip

    first = at(found.policy_B_T)
    share_B = update_stats.gradient_share(first.grad_B_T, found.policy_B_T, found.mask_B_T)
    low = high = None
    if found.after_B_T is not None:
        further = at(found.after_B_T)
        clipped = update_stats.clip_fractions(
            further.clipped_low_B_T,
            further.clipped_high_B_T,
            found.mask_B_T,
            objective.importance_sampling_level,
        )
        low, high = clipped.low, clipped.high
    long_B = lengths_B > np.median(lengths_B[lengths_B > 0]) if lengths_B.any() else lengths_B > 0
    return TokenView(low, high, float(share_B[long_B].sum()), share_B)
