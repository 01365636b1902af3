"""Stage 5b: the same objectives as `token_grads.py`, as loss values for autograd (torch).

Derived separately on purpose: here the formulas of the papers are written down and torch differentiates them,
there the derivative is written down. Tests hold the two against each other through a real model.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from workbench.algorithm.token_grads import LOG_LIMIT, Normalizer, Objective
from workbench.core.variants import LOSSES


class LossTerms(NamedTuple):
    """Scalars; `total` carries the graph."""

    total: Tensor
    """policy + kl - entropy_coef * entropy: sums over micro-batches and ranks give the loss of the update."""
    policy: Tensor
    kl: Tensor
    """Already times beta, normalised like the policy term."""
    entropy: Tensor
    """This part's contribution to the mean token entropy of the update, before its coefficient; 0 where it is
    not given."""


def loss(
    logp_B_T: Tensor,
    old_logp_B_T: Tensor | None,
    ref_logp_B_T: Tensor | None,
    sampler_logp_B_T: Tensor | None,
    advantages_B: Tensor,
    mask_B_T: Tensor,
    objective: Objective,
    normalizer: Normalizer,
    entropy_B_T: Tensor | None = None,
) -> LossTerms:
    """Value of the objective for these rows; arguments as for `token_grads.loss_grads`.

    `entropy_B_T` (with graph) is needed where entropy_coef is not 0; its bonus is a mean over all loss tokens
    of the update whatever the loss type (TRL).
    """
    mask = mask_B_T > 0
    live = mask.to(logp_B_T.dtype)
    logp = logp_B_T.where(mask, 0.0)
    old = logp.detach() if old_logp_B_T is None else old_logp_B_T.where(mask, 0.0)
    advantage = (advantages_B if advantages_B.ndim == 2 else advantages_B[:, None]).where(mask, 0.0)

    log_ratio = logp - old
    if objective.importance_sampling_level == "sequence":
        log_ratio = ((log_ratio * live).sum(1) / live.sum(1).clamp(min=1)).unsqueeze(1).expand_as(logp)
    ratio = log_ratio.clamp(-LOG_LIMIT, LOG_LIMIT).exp()

    policy = _policy_term(ratio, logp, advantage, objective) * _trust(
        logp, old, sampler_logp_B_T, advantage, live, objective
    )
    kl = torch.zeros_like(logp)
    if objective.kl_weight:
        if ref_logp_B_T is None:
            raise ValueError(
                "beta > 0 with the KL in the loss needs ref_logp_B_T, the reference's log-probabilities."
            )
        kl = _kl(logp, ref_logp_B_T.where(mask, 0.0), objective.kl_estimator)
        if objective.kl_estimator.endswith("_ratio"):
            kl = kl * ratio
    policy_loss = _aggregate(policy, live, objective, normalizer)
    kl_loss = objective.kl_weight * _aggregate(kl, live, objective, normalizer)
    entropy = torch.zeros((), dtype=logp.dtype, device=logp.device)
    if entropy_B_T is not None:
        weighted = entropy_B_T.where(mask, 0.0).sum(1) * normalizer.sample_weights_B
        entropy = weighted.sum() / max(normalizer.tokens, 1e-9)
    elif objective.entropy_coef:
        raise ValueError("entropy_coef > 0 needs entropy_B_T, the entropy of each token's distribution.")
    return LossTerms(policy_loss + kl_loss - objective.entropy_coef * entropy, policy_loss, kl_loss, entropy)


def _policy_term(ratio: Tensor, logp: Tensor, advantage: Tensor, objective: Objective) -> Tensor:
    """(B, T) term of each token, before any weight."""
    surrogate = LOSSES[objective.loss_type].surrogate
    if surrogate == "capped_weight":
        return -ratio.detach().clamp(max=objective.clip_high) * advantage * logp
    if surrogate == "soft_gate":
        tau = torch.full_like(ratio, objective.sapo_temperature_neg).where(
            advantage <= 0, objective.sapo_temperature_pos
        )
        return -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantage
    unclipped = (ratio if objective.delta is None else ratio.clamp(max=objective.delta)) * advantage
    clipped = ratio.clamp(1 - objective.epsilon, 1 + objective.clip_high) * advantage
    gain = torch.minimum(unclipped, clipped)
    if objective.dual_clip is not None:
        gain = torch.where(advantage < 0, torch.maximum(gain, objective.dual_clip * advantage), gain)
    return -gain


def _kl(logp: Tensor, ref_logp: Tensor, estimator: str) -> Tensor:
    log_x = ref_logp - logp
    if estimator.startswith("k1"):
        return -log_x
    if estimator.startswith("k2"):
        return log_x.square() / 2
    return log_x.clamp(-LOG_LIMIT, LOG_LIMIT).exp() - 1 - log_x


@torch.no_grad()
def _trust(
    logp: Tensor, old: Tensor, sampler: Tensor | None, advantage: Tensor, live: Tensor, objective: Objective
) -> Tensor:
    """(B, T) constant factor: sampler mismatch correction times off-policy mask."""
    factor = torch.ones_like(logp)
    mode = objective.importance_sampling_correction
    if sampler is not None and mode != "off":
        low = objective.importance_sampling_clip_min or 0.0
        high = objective.importance_sampling_clip_max or float("inf")
        gap = (old - sampler).where(live > 0, 0.0).nan_to_num(nan=0.0)
        if mode.startswith("sequence"):
            gap = gap.sum(1, keepdim=True).expand_as(gap)
        factor = gap.clamp(-LOG_LIMIT, LOG_LIMIT).exp()
        factor = (
            factor.clamp(low, high)
            if mode.endswith("truncate")
            else factor.where((factor >= low) & (factor <= high), 0.0)
        )
    if objective.off_policy_mask_threshold is not None:
        gap = ((old if sampler is None else sampler) - logp).where(live > 0, 0.0).nan_to_num(nan=0.0)
        left = (
            gap.sum(1, keepdim=True) / live.sum(1, keepdim=True).clamp(min=1)
            > objective.off_policy_mask_threshold
        )
        factor = factor.masked_fill(left & (advantage < 0), 0.0)
    return factor


def _aggregate(term: Tensor, live: Tensor, objective: Objective, n: Normalizer) -> Tensor:
    """Sum of (B, T) terms under the loss type's normaliser."""
    sum_B: Tensor = (term * live).sum(1) * n.sample_weights_B
    group_tokens_B: Tensor = n.group_tokens_B
    micro_tokens_B: Tensor = n.micro_tokens_B
    match LOSSES[objective.loss_type].normalization:
        case "sequence_mean":
            return (sum_B / live.sum(1).clamp(min=1)).sum() / n.sequences
        case "sequence_sum":
            return sum_B.sum() / n.sequences
        case "constant_length":
            return sum_B.sum() / (n.sequences * objective.max_completion_length)
        case "all_tokens":
            return sum_B.sum() / max(n.tokens, 1e-9)
        case "group_tokens":
            return (sum_B / group_tokens_B.clamp(min=1e-9)).sum() / n.groups
        case "microbatch_tokens":
            return (sum_B / micro_tokens_B.clamp(min=1e-9)).sum() / n.micro_batches
