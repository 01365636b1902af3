"""Stage 5a: log-probabilities and advantages in, the exact d(loss)/d(log-prob) of every token out.

Written once over the array interface: the update gives torch tensors (no graph is needed), every what-if
numpy arrays. A loss is one surrogate + one normaliser: a row of `core.variants.LOSSES`. `losses.py` holds the same
objectives as values for autograd. Minimised loss = minus the objective. Tokens outside the mask may hold
anything, NaN included: their weight is exactly 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Self

from array_api_compat import array_namespace

from workbench.algorithm.advantages import Array, members
from workbench.core import variants
from workbench.core.errors import ConfigError
from workbench.core.variants import KL_ESTIMATORS, LOSSES, Correction, KlEstimator, LossType, RatioLevel

LOG_LIMIT = 40.0
"""Log-ratios are cut to plus and minus this before exp (e^40 = 2e17), so that one absurd token cannot make an
infinity and, times a zero advantage, a NaN. Beyond it the derivative through exp is zero."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised. Field names, meanings and defaults are those of the settings; `of` copies them."""

    loss_type: LossType = "dapo"
    importance_sampling_level: RatioLevel = "token"
    """sequence: one ratio a completion, exp of the mean log-ratio of its tokens (GSPO 2507.18071)."""
    epsilon: float = 0.2
    epsilon_high: float | None = None
    """None = epsilon. For cispo this is the cap itself, not 1 + it."""
    delta: float | None = None
    """Two-sided clipping (INTELLECT-2 2505.07291): min(ratio, delta) in the unclipped branch."""
    dual_clip: float | None = None
    """Where A < 0 the objective is at least this multiple of A (dual-clip PPO 1912.09729)."""
    sapo_temperature_pos: float = 1.0
    sapo_temperature_neg: float = 1.05
    importance_sampling_correction: Correction = "off"
    importance_sampling_clip_max: float | None = 3.0
    importance_sampling_clip_min: float | None = None
    off_policy_mask_threshold: float | None = None
    beta: float = 0.0
    kl_estimator: KlEstimator = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    entropy_coef: float = 0.0
    """Not in the weights, as it moves every token of the vocabulary; `losses.loss` adds it by autograd."""
    max_completion_length: int = 512
    """The constant length of dr_grpo."""

    def __post_init__(self) -> None:
        for name, known in (("loss_type", LOSSES), ("kl_estimator", KL_ESTIMATORS)):
            if (given := getattr(self, name)) not in known:
                raise ConfigError(
                    f"{name} = {given!r} is not known. Choose one of {', '.join(known)}.",
                    {name: f"{given!r} is not known"},
                )

    @classmethod
    def of(cls, settings: Any) -> Self:
        """From anything that has attributes of the same names, such as a RunConfig."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @property
    def clip_high(self) -> float:
        """Upper clip distance (cispo: the cap)."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    @property
    def separable(self) -> bool:
        """Whether a token's weight follows from its own log-probabilities, without those of its whole completion."""
        return (
            self.importance_sampling_level == "token"
            and not self.importance_sampling_correction.startswith("sequence")
            and self.off_policy_mask_threshold is None
        )

    @property
    def kl_weight(self) -> float:
        """Weight of the KL term inside the loss; 0 where the penalty goes into the rewards."""
        return self.beta if self.kl_in == "loss" else 0.0


class Normalizer(NamedTuple):
    """What the sums of one optimiser update are divided by. Made once for the whole update; micro-batches
    take their `rows`, ranks add up their `totals`, and plain sums over micro-batches and ranks then give the
    objective exactly: neither accumulation nor sharding changes it. (Averaging over ranks, as DDP does:
    multiply by the world size.) Only bnpo depends on micro-batches, by definition. Every row counts as a
    sequence, also one whose tokens are all masked, as in TRL.
    """

    sequences: float
    tokens: float
    groups: float
    micro_batches: float
    group_tokens_B: Array
    """Loss tokens in the group of each row."""
    micro_tokens_B: Array
    """Loss tokens in the micro-batch of each row."""
    sample_weights_B: Array
    """How much each sample counts: 1, or `advantages.prompt_weights`. It weights sequences and tokens too."""

    def rows(self, index: Any) -> Self:
        """The same totals for a part of the rows (a slice or integer indices)."""
        return self._replace(
            group_tokens_B=self.group_tokens_B[index],
            micro_tokens_B=self.micro_tokens_B[index],
            sample_weights_B=self.sample_weights_B[index],
        )

    @property
    def totals(self) -> tuple[float, float, float, float]:
        """The four numbers that ranks have to add up before the first micro-batch."""
        return self.sequences, self.tokens, self.groups, self.micro_batches

    def with_totals(self, sequences: float, tokens: float, groups: float, micro_batches: float) -> Self:
        """With the sums over all ranks in place of this rank's own."""
        return self._replace(sequences=sequences, tokens=tokens, groups=groups, micro_batches=micro_batches)


def normalizer(
    lengths_B: Array,
    group_ids_B: Array,
    *,
    micro_batch_ids_B: Array | None = None,
    sample_weights_B: Array | None = None,
) -> Normalizer:
    """For all rows of one update on this rank, on which groups must be whole.

    `lengths_B`: loss tokens of each row, float. Without `micro_batch_ids_B` everything is one micro-batch.
    """
    xp = array_namespace(lengths_B)
    weights_B = xp.ones_like(lengths_B) if sample_weights_B is None else sample_weights_B
    tokens_B = lengths_B * weights_B
    groups, group_tokens_B = _sum_by(group_ids_B, tokens_B)
    micro_ids_B = xp.zeros_like(group_ids_B) if micro_batch_ids_B is None else micro_batch_ids_B
    micro_batches, micro_tokens_B = _sum_by(micro_ids_B, tokens_B)
    return Normalizer(
        float(xp.sum(weights_B)),
        float(xp.sum(tokens_B)),
        float(groups),
        float(micro_batches),
        group_tokens_B,
        micro_tokens_B,
        weights_B,
    )


class TokenGrads(NamedTuple):
    """What `loss_grads` returns; all (B, T). Outside the mask 0, the ratio 1."""

    grad_B_T: Array
    """d(loss)/d(log-prob): `(weight * logp).sum()` has the loss's gradient. Negative = make more likely."""
    ratio_B_T: Array
    """pi / pi_old of the token, or of its whole completion; 1 where no old log-probabilities are given."""
    clipped_low_B_T: Array
    """ratio < 1 - epsilon and A < 0: the clip switched the push off. Never for cispo and sapo."""
    clipped_high_B_T: Array
    """ratio > 1 + epsilon_high and A > 0. cispo: ratio > cap and A > 0, where the push is capped, not off."""
    correction_B_T: Array
    """Sampler / trainer importance weight times the off-policy mask; 1 where both are off."""
    kl_B_T: Array | None
    """The KL estimator's value, times the ratio for *_ratio; None without a reference."""


def loss_grads(
    logp_B_T: Array,
    old_logp_B_T: Array | None,
    ref_logp_B_T: Array | None,
    sampler_logp_B_T: Array | None,
    advantages_B: Array,
    mask_B_T: Array,
    objective: Objective,
    normalizer: Normalizer,
    lengths_B: Array | None = None,
) -> TokenGrads:
    """The exact derivative of the loss by each token's log-probability.

    All log-probabilities in nats at the sampling temperature. `old_logp` None = on-policy: the old policy is
    this one. `ref_logp` is needed where the loss holds a KL term, `sampler_logp` where a correction is on
    (NaN = unknown, weight 1). `advantages_B` may also be (B, T). KL terms estimate KL(policy || reference).
    `lengths_B`: loss tokens of the whole completions, where rows hold only a part of theirs (`objective.separable`).
    Raises ValueError for a KL term without a reference.
    """
    xp = array_namespace(logp_B_T)
    mask = mask_B_T > 0
    live = xp.astype(mask, logp_B_T.dtype)
    logp = xp.where(mask, logp_B_T, 0.0)
    old = logp if old_logp_B_T is None else xp.where(mask, old_logp_B_T, 0.0)
    advantage = advantages_B if advantages_B.ndim == 2 else advantages_B[:, None]
    advantage = xp.where(mask, advantage, 0.0)
    length = xp.clip(
        xp.sum(live, axis=1, keepdims=True) if lengths_B is None else lengths_B[:, None], min=1.0
    )
    loss = LOSSES[objective.loss_type]
    row_scale = NORMALIZATIONS[loss.normalization](length[:, 0], objective, normalizer)
    scale = live * (row_scale * normalizer.sample_weights_B)[:, None]

    log_ratio = logp - old
    if objective.importance_sampling_level == "sequence":
        log_ratio = live * (xp.sum(log_ratio, axis=1, keepdims=True) / length)
    ratio = _exp(log_ratio)
    moves = live * xp.astype(xp.abs(log_ratio) <= LOG_LIMIT, live.dtype)

    def through_ratio(slope: Array) -> Array:
        """d/d(log-prob) from the terms' d/d(log-ratio): a whole ratio moves with the mean of its tokens."""
        if objective.importance_sampling_level == "token":
            return slope * moves
        return moves * (xp.sum(slope, axis=1, keepdims=True) / length)

    correction = live * importance_correction(old, sampler_logp_B_T, mask, objective)
    if objective.off_policy_mask_threshold is not None:
        sampled = old if sampler_logp_B_T is None else sampler_logp_B_T
        correction = correction * xp.astype(
            off_policy_keep(logp, sampled, advantage, mask, objective.off_policy_mask_threshold), live.dtype
        )
    push = SURROGATES[loss.surrogate](ratio, advantage, objective)
    slope = scale * correction * push.slope
    weight = through_ratio(slope) if push.through_ratio else slope

    kl = None
    if ref_logp_B_T is not None:
        kl, kl_slope = kl_term(logp, xp.where(mask, ref_logp_B_T, 0.0), objective.kl_estimator)
        penalty = objective.kl_weight * scale
        if objective.kl_estimator.endswith("_ratio"):
            kl, kl_slope = kl * ratio, kl_slope * ratio
            weight = weight + through_ratio(penalty * kl)
        weight = weight + penalty * kl_slope
        kl = kl * live
    elif objective.kl_weight:
        raise ValueError(
            "beta > 0 with the KL in the loss needs ref_logp_B_T, the reference's log-probabilities."
        )
    return TokenGrads(
        weight, xp.where(mask, ratio, 1.0), push.clipped_low & mask, push.clipped_high & mask, correction, kl
    )


# -- surrogates: ratio and advantage -> slope ------------------------------------------------------


class Push(NamedTuple):
    """What a surrogate gives for each token."""

    slope: Array
    """d(term)/d(log-ratio), or d(term)/d(own log-prob) where `through_ratio` is False."""
    clipped_low: Array
    clipped_high: Array
    through_ratio: bool = True


def clip_masks(ratio: Array, advantage: Array, objective: Objective) -> tuple[Array, Array]:
    """Where clipping switches the push off: (r < 1 - epsilon and A < 0), (r > 1 + epsilon_high and A > 0)."""
    low = (ratio < 1.0 - objective.epsilon) & (advantage < 0)
    return low, (ratio > 1.0 + objective.clip_high) & (advantage > 0)


def clipped_surrogate(ratio: Array, advantage: Array, objective: Objective) -> Push:
    """-min(u, v) with u = min(r, delta) A, v = clip(r, 1 - epsilon, 1 + epsilon_high) A; where A < 0 at most
    -dual_clip A. (PPO 1707.06347)"""
    xp = array_namespace(ratio)
    low, high = clip_masks(ratio, advantage, objective)
    inside = (ratio >= 1.0 - objective.epsilon) & (ratio <= 1.0 + objective.clip_high)
    v = xp.clip(ratio, min=1.0 - objective.epsilon, max=1.0 + objective.clip_high) * advantage
    below_delta = ratio <= (float("inf") if objective.delta is None else objective.delta)
    u = (ratio if objective.delta is None else xp.clip(ratio, max=objective.delta)) * advantage
    flows = xp.where(u <= v, below_delta | (inside & (u == v)), inside)
    if objective.dual_clip is not None:
        flows = flows & ((advantage >= 0) | (xp.minimum(u, v) >= objective.dual_clip * advantage))
    return Push(xp.where(flows, -ratio * advantage, 0.0), low, high)


def soft_surrogate(ratio: Array, advantage: Array, objective: Objective) -> Push:
    """-(4 / tau) sigmoid(tau (r - 1)) A, tau by the sign of A: no edge, slope -A at r = 1. (2511.20347)"""
    xp = array_namespace(ratio)
    tau = xp.where(
        advantage > 0, xp.ones_like(ratio) * objective.sapo_temperature_pos, objective.sapo_temperature_neg
    )
    # sigmoid(x) (1 - sigmoid(x)), written with exp(-|x|) so that it cannot overflow
    decay = xp.exp(-xp.abs(tau * (ratio - 1.0)))
    nowhere = xp.zeros_like(ratio) > 0
    return Push(-4.0 * decay / (1.0 + decay) ** 2 * ratio * advantage, nowhere, nowhere)


def capped_surrogate(ratio: Array, advantage: Array, objective: Objective) -> Push:
    """-stop_gradient(min(r, cap)) A log pi: every token keeps a push, none a large one. (CISPO 2506.13585)"""
    xp = array_namespace(ratio)
    slope = -xp.clip(ratio, max=objective.clip_high) * advantage
    capped = (ratio > objective.clip_high) & (advantage > 0)
    return Push(slope, xp.zeros_like(ratio) > 0, capped, through_ratio=False)


# -- normalisers: what each row's sum of terms is multiplied by ------------------------------------


def sequence_mean(length_B: Array, objective: Objective, n: Normalizer) -> Array:
    """Mean over all sequences of each one's token mean."""
    return 1.0 / (n.sequences * length_B)


def sequence_sum(length_B: Array, objective: Objective, n: Normalizer) -> float:
    """Mean over all sequences of each one's token sum."""
    return 1.0 / n.sequences


def constant_length(length_B: Array, objective: Objective, n: Normalizer) -> float:
    """Token sum over (sequences x max_completion_length): no length bias. (Dr. GRPO 2503.20783)"""
    return 1.0 / (n.sequences * objective.max_completion_length)


def all_tokens(length_B: Array, objective: Objective, n: Normalizer) -> float:
    """Token sum over all loss tokens of the update. (TRL's dapo)"""
    return 1.0 / max(n.tokens, 1e-9)


def group_tokens(length_B: Array, objective: Objective, n: Normalizer) -> Array:
    """Mean over groups of each one's token mean. (DAPO 2503.14476 as printed)"""
    xp = array_namespace(length_B)
    return 1.0 / (n.groups * xp.clip(n.group_tokens_B, min=1e-9))


def microbatch_tokens(length_B: Array, objective: Objective, n: Normalizer) -> Array:
    """Mean over micro-batches of each one's token mean: depends on their size, by definition. (TRL's bnpo)"""
    xp = array_namespace(length_B)
    return 1.0 / (n.micro_batches * xp.clip(n.micro_tokens_B, min=1e-9))


SURROGATES: dict[variants.Surrogate, Callable[[Array, Array, Objective], Push]] = {
    "clipped": clipped_surrogate,
    "soft_gate": soft_surrogate,
    "capped_weight": capped_surrogate,
}
NORMALIZATIONS: dict[variants.Normalization, Callable[[Array, Objective, Normalizer], Array | float]] = {
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
    "constant_length": constant_length,
    "all_tokens": all_tokens,
    "group_tokens": group_tokens,
    "microbatch_tokens": microbatch_tokens,
}


# -- KL to the reference ---------------------------------------------------------------------------


def kl_term(logp: Array, ref_logp: Array, estimator: KlEstimator) -> tuple[Array, Array]:
    """Value and d(value)/d(log pi) of Schulman's estimators of KL(policy || reference), d = log ref - log pi.

    k1 = -d: unbiased, may be negative; as a loss its expected gradient is 0 (no pull at all). k2 = d^2 / 2:
    biased value, gradient of KL(policy || reference). k3 = e^d - d - 1: unbiased, never negative; its
    gradient is that of KL(reference || policy). A `_ratio` suffix is ignored here: the caller multiplies by
    pi / pi_old, after which k1 and k3 too have the gradient of KL(policy || reference). (2502.18548 eq 8-10)
    """
    xp = array_namespace(logp)
    d = ref_logp - logp
    match estimator.removesuffix("_ratio"):
        case "k1":
            return -d, xp.ones_like(d)
        case "k2":
            return 0.5 * d**2, -d
        case _:
            grows = xp.where(xp.abs(d) <= LOG_LIMIT, _exp(d), 0.0)
            return _exp(d) - d - 1.0, 1.0 - grows


def kl_in_rewards(
    rewards_B: Array,
    logp_B_T: Array,
    ref_logp_B_T: Array,
    mask_B_T: Array,
    beta: float,
    estimator: KlEstimator = "k1",
) -> Array:
    """Rewards minus beta times each completion's KL(policy || reference), before advantages are taken.

    The estimate is summed over the tokens, and so punishes length. `logp` is the policy that sampled, so the
    `_ratio` estimators equal the plain ones here. Absent (NaN) rewards stay absent.
    """
    xp = array_namespace(logp_B_T)
    mask = mask_B_T > 0
    kl, _ = kl_term(xp.where(mask, logp_B_T, 0.0), xp.where(mask, ref_logp_B_T, 0.0), estimator)
    return rewards_B - beta * xp.sum(xp.where(mask, kl, 0.0), axis=1)


# -- sampler and trainer disagree ------------------------------------------------------------------


def importance_correction(
    old_logp_B_T: Array, sampler_logp_B_T: Array | None, mask_B_T: Array, objective: Objective
) -> Array:
    """(B, T) constant weight pi_old / pi_sampler of each token, or of each completion (product over its tokens).

    truncate cuts it to [clip_min, clip_max], mask makes it 0 outside. Multiplies the policy term only, not
    the KL. (truncated and masked importance sampling, with TRL's mode names)
    """
    xp = array_namespace(old_logp_B_T)
    if sampler_logp_B_T is None or objective.importance_sampling_correction == "off":
        return xp.ones_like(old_logp_B_T)
    known = (mask_B_T > 0) & ~xp.isnan(sampler_logp_B_T)
    log_w = xp.where(known, old_logp_B_T - sampler_logp_B_T, 0.0)
    level, mode = objective.importance_sampling_correction.split("_")
    if level == "sequence":
        log_w = xp.sum(log_w, axis=1, keepdims=True) + xp.zeros_like(log_w)
    w = _exp(log_w)
    low, high = objective.importance_sampling_clip_min, objective.importance_sampling_clip_max
    if mode == "truncate":
        return xp.clip(w, min=low, max=high)
    outside = (w < (0.0 if low is None else low)) | (w > (float("inf") if high is None else high))
    return xp.where(outside, 0.0, w)


def off_policy_keep(
    logp_B_T: Array, sampled_logp_B_T: Array, advantages_B: Array, mask_B_T: Array, threshold: float
) -> Array:
    """Which completions keep their weight: all with A >= 0, and those the policy has not left by more than `threshold`.

    That is the mean over tokens of log pi_sampled - log pi, nats; NaN is no evidence. (DeepSeek-V3.2,
    2512.02556 eq 9.) Shape (B, 1) for (B,) advantages, else (B, T).
    """
    xp = array_namespace(logp_B_T)
    known = (mask_B_T > 0) & ~xp.isnan(sampled_logp_B_T)
    drift = xp.sum(xp.where(known, sampled_logp_B_T - logp_B_T, 0.0), axis=1, keepdims=True)
    length = xp.clip(xp.sum(xp.astype(mask_B_T > 0, logp_B_T.dtype), axis=1, keepdims=True), min=1.0)
    advantage = advantages_B if advantages_B.ndim == 2 else advantages_B[:, None]
    return (advantage >= 0) | (drift / length <= threshold)


def _sum_by(ids_B: Array, values_B: Array) -> tuple[int, Array]:
    """Number of distinct ids, and for each row the sum over its id."""
    if not ids_B.shape[0]:  # a rank may have nothing to do in an update
        return 0, values_B
    groups = members(ids_B)
    return groups.inside_P_G.shape[0], groups.sum(values_B)[groups.index_B]


def _exp(x: Array) -> Array:
    xp = array_namespace(x)
    return xp.exp(xp.clip(x, min=-LOG_LIMIT, max=LOG_LIMIT))
