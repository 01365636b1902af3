"""Stage 4: rewards -> advantages. Flat samples and group ids in (ragged groups too), signed number each out.

Written once over the array interface: the update gives torch tensors, every what-if numpy arrays. An absent
reward is NaN and is left out of its group's mean and std; a group without signal gets exact zeros. No NaN
ever comes out.
"""

from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from workbench.core.variants import Aggregation, Baseline, Scale, Std

Array = Any
"""A numpy array or a torch tensor; the array interface has no common type to name."""

TIE_ROUNDING = 16.0
"""Rewards of a group that differ by less than this many roundings of the largest one are a tie: otherwise
0.1 + 0.2 against 0.3 would be a difference, which dividing by its std blows up to plus and minus one."""


class Advantages(NamedTuple):
    """What `compute` returns. `_P` arrays have one entry a group, in the order of ascending group id."""

    advantages_B: Array
    """(B,) finite; exactly 0 for absent rewards, excluded samples and groups without signal."""
    mean_P: Array
    """Mean reward of the scored samples; 0 where there is none."""
    std_P: Array
    """Std of the group's rewards in the convention asked for, whatever `scale`; exactly 0 where tied."""
    divisor_P: Array
    """What (reward - baseline) was divided by: std + eps of the group or of the batch, or 1."""
    count_P: Array
    """Scored samples."""
    zero_std_P: Array
    """No signal: every scored reward is the same (or none was scored)."""
    all_right_P: Array
    """Zero std at the top of the reward range."""
    all_wrong_P: Array
    """Zero std at the bottom of the reward range."""
    tied_P: Array
    """Zero std in between."""
    absent_P: Array
    """Zero std because no sample of the group has a reward."""


def compute(
    rewards_B: Array,
    group_ids_B: Array,
    *,
    scale: Scale = "group",
    std: Std = "sample",
    eps: float = 1e-4,
    baseline: Baseline = "mean",
    excluded_B: Array | None = None,
    reward_range: tuple[float, float] = (0.0, 1.0),
    batch_ids_B: Array | None = None,
) -> Advantages:
    """(reward - baseline) / divisor for each sample.

    `scale` group and `std` population with eps 0 is the papers' GRPO (2402.03300, 2502.18548 eq 2, with 0/0
    := 0); the defaults are TRL 1.16's; `scale` none is Dr. GRPO (2503.20783); batch divides by one std of all
    rewards (2508.08221), the mean stays the group's. `baseline` leave_one_out is RLOO: the mean of the
    *other* scored samples, G/(G-1) times the distance to the mean.

    `rewards_B`: float, NaN (or infinite) = absent. `excluded_B`: samples that must not be pushed (masked
    because truncated); they still count in their group's mean and std, as in TRL, so the rest no longer sums
    to zero. `reward_range`: the lowest and highest total reward possible, only used to distinguish all-right
    and all-wrong groups from other ties. `batch_ids_B`: which batch each sample belongs to, where many steps are
    asked at once; None = one batch.

    Invariance: adding a constant to a group changes nothing; multiplying all rewards by a constant changes
    nothing with eps 0, and by the factor (std + eps) / (std + eps / constant) otherwise: with TRL's 1e-4,
    rewards of size 1e-3 lose 15 %.
    """
    xp = array_namespace(rewards_B)
    groups = members(group_ids_B)
    present_B = xp.isfinite(rewards_B)
    filled_B = xp.where(present_B, rewards_B, 0.0)
    count_P = groups.sum(xp.astype(present_B, rewards_B.dtype))
    mean_P = groups.sum(filled_B) / xp.clip(count_P, min=1.0)
    tied_P = _ties(filled_B, present_B, groups)
    absent_P = count_P == 0

    live_B = present_B & ~tied_P[groups.index_B]
    centred_B = xp.where(live_B, filled_B - mean_P[groups.index_B], 0.0)
    std_P = xp.sqrt(groups.sum(centred_B**2) / xp.clip(count_P - _ddof(std), min=1.0))
    match scale:
        case "group":
            divisor_P = std_P + eps
        case "batch":
            divisor_B = _batch_std(filled_B, present_B, std, batch_ids_B) + eps
            divisor_P = divisor_B[groups.table_P_G[:, 0]]
        case "none":
            divisor_P = xp.ones_like(std_P)
    if baseline == "leave_one_out":
        centred_B = centred_B * (count_P / xp.clip(count_P - 1.0, min=1.0))[groups.index_B]
    safe_P = xp.where(divisor_P > 0, divisor_P, 1.0)  # a zero divisor only meets centred zeros
    advantages_B = centred_B / safe_P[groups.index_B]
    if excluded_B is not None:
        advantages_B = xp.where(excluded_B, 0.0, advantages_B)

    low, high = reward_range
    slack = 1e-6 * (high - low)
    right_P = tied_P & ~absent_P & (mean_P >= high - slack)
    wrong_P = tied_P & ~absent_P & ~right_P & (mean_P <= low + slack)
    return Advantages(
        advantages_B,
        mean_P,
        std_P,
        divisor_P,
        count_P,
        tied_P,
        right_P,
        wrong_P,
        tied_P & ~absent_P & ~right_P & ~wrong_P,
        absent_P,
    )


def combine(rewards_B_F: Array, weights_F: Array) -> Array:
    """(B,) weighted sum of each sample's rewards. Absent (NaN) ones add nothing; all absent stays absent."""
    xp = array_namespace(rewards_B_F)
    present_B_F = xp.isfinite(rewards_B_F)
    total_B = xp.sum(xp.where(present_B_F, rewards_B_F * weights_F, 0.0), axis=1)
    return xp.where(xp.any(present_B_F, axis=1), total_B, xp.full_like(total_B, float("nan")))


def from_rewards(
    rewards_B_F: Array,
    weights_F: Array,
    group_ids_B: Array,
    *,
    aggregation: Aggregation = "sum_then_normalize",
    scale: Scale = "group",
    std: Std = "sample",
    eps: float = 1e-4,
    baseline: Baseline = "mean",
    excluded_B: Array | None = None,
    reward_range: tuple[float, float] = (0.0, 1.0),
    batch_ids_B: Array | None = None,
) -> Advantages:
    """Advantages from several rewards: their weighted sum through `compute`, or each reward normalised first.

    normalize_then_sum is GDPO (2601.05242, TRL): every reward's z-score in its group, their weighted sum,
    divided by the std of those sums over the batch; `scale` and `baseline` do not apply. The group statistics
    returned are those of the plain sum.
    """
    xp = array_namespace(rewards_B_F)
    total = compute(
        combine(rewards_B_F, weights_F),
        group_ids_B,
        scale=scale,
        std=std,
        eps=eps,
        baseline=baseline,
        excluded_B=excluded_B,
        reward_range=reward_range,
        batch_ids_B=batch_ids_B,
    )
    if aggregation == "sum_then_normalize":
        return total
    columns = [compute(rewards_B_F[:, f], group_ids_B, std=std, eps=eps) for f in range(rewards_B_F.shape[1])]
    sums_B = sum(column.advantages_B * weights_F[f] for f, column in enumerate(columns))
    # Each column's z-scores sum to zero in every group: the batch mean is zero, there is nothing to subtract.
    divisor_B = _batch_std(sums_B, xp.any(xp.isfinite(rewards_B_F), axis=1), std, batch_ids_B) + eps
    advantages_B = sums_B / xp.where(divisor_B > 0, divisor_B, 1.0)
    if excluded_B is not None:
        advantages_B = xp.where(excluded_B, 0.0, advantages_B)
    # A group has no signal only if every single reward is tied: opposite differences may cancel in the sum.
    zero_P = xp.all(xp.stack([column.zero_std_P for column in columns]), axis=0)
    return total._replace(
        advantages_B=advantages_B,
        divisor_P=divisor_B[members(group_ids_B).table_P_G[:, 0]],
        zero_std_P=zero_P,
        all_right_P=total.all_right_P & zero_P,
        all_wrong_P=total.all_wrong_P & zero_P,
        tied_P=zero_P & ~total.absent_P & ~total.all_right_P & ~total.all_wrong_P,
    )


def by_settings(
    rewards_B_F: Array,
    weights_F: Array,
    group_ids_B: Array,
    settings: Any,
    *,
    penalty_B: Array | None = None,
    batch_ids_B: Array | None = None,
) -> Advantages:
    """What a run with these settings asks: every choice by the names of `RunConfig`, for the loop and for
    what-if alike. `penalty_B` (KL in the rewards) counts as one more reward of weight -1.
    """
    xp = array_namespace(rewards_B_F)
    if penalty_B is not None:
        absent_B = ~xp.any(xp.isfinite(rewards_B_F), axis=1)
        column_B = xp.where(absent_B, xp.full_like(penalty_B, float("nan")), -penalty_B)
        rewards_B_F = xp.concat([rewards_B_F, column_B[:, None]], axis=1)
        weights_F = xp.concat([weights_F, xp.ones_like(weights_F[:1])])
    if settings.reward_clip is not None and settings.multi_objective_aggregation == "sum_then_normalize":
        total_B = combine(rewards_B_F, weights_F)
        rewards_B_F = xp.clip(total_B, min=-settings.reward_clip, max=settings.reward_clip)[:, None]
        weights_F = xp.ones_like(weights_F[:1])
    return from_rewards(
        rewards_B_F,
        weights_F,
        group_ids_B,
        aggregation=settings.multi_objective_aggregation,
        scale=settings.scale_rewards,
        std=settings.advantage_std,
        eps=settings.advantage_eps,
        baseline=settings.advantage_baseline,
        batch_ids_B=batch_ids_B,
    )


def prompt_weights(group_ids_B: Array, dtype_like_B: Array) -> Array:
    """(B,) weights with mean 1 that make every *prompt* count the same; all 1 for groups of equal size.

    Given to `token_grads.normalizer` as `sample_weights_B` where adaptive sampling made ragged groups.
    """
    xp = array_namespace(dtype_like_B)
    groups = members(group_ids_B)
    size_P = groups.sum(xp.ones_like(dtype_like_B))
    return (groups.index_B.shape[0] / size_P.shape[0]) / size_P[groups.index_B]


class Members(NamedTuple):
    """Who belongs to which group: ragged groups as a padded table, so that sums over groups need no loop."""

    index_B: Array
    """Position of each sample's group among the ascending ids."""
    table_P_G: Array
    """The samples of each group; G is the largest group, surplus places hold any sample."""
    inside_P_G: Array
    """Which places of the table are real."""

    def gather(self, values_B: Array, outside: float = 0.0) -> Array:
        """(P, G) sample values by group."""
        return array_namespace(values_B).where(self.inside_P_G, values_B[self.table_P_G], outside)

    def sum(self, values_B: Array) -> Array:
        """(P,) sums of sample values."""
        return array_namespace(values_B).sum(self.gather(values_B), axis=1)


def members(group_ids_B: Array) -> Members:
    """Groups in the order of ascending id; ids may be any integers, samples in any order."""
    xp = array_namespace(group_ids_B)
    order_B = xp.argsort(group_ids_B, stable=True)
    sorted_B = group_ids_B[order_B]
    starts_B = xp.concat([xp.ones_like(sorted_B[:1]) > 0, sorted_B[1:] != sorted_B[:-1]])
    first_P = xp.nonzero(starts_B)[0]
    size_P = xp.concat([first_P[1:], 0 * first_P[:1] + sorted_B.shape[0]]) - first_P
    index_B = (xp.cumulative_sum(xp.astype(starts_B, first_P.dtype)) - 1)[xp.argsort(order_B)]
    slot_G = xp.arange(int(xp.max(size_P)), device=device(group_ids_B))
    inside_P_G = slot_G[None, :] < size_P[:, None]
    return Members(index_B, order_B[xp.where(inside_P_G, first_P[:, None] + slot_G[None, :], 0)], inside_P_G)


def tied(rewards_B: Array) -> bool:
    """Whether one group's rewards are the same up to rounding, so that it asks for nothing."""
    xp = array_namespace(rewards_B)
    groups = members(xp.zeros(rewards_B.shape[0], dtype=xp.int64, device=device(rewards_B)))
    return bool(_ties(rewards_B, xp.isfinite(rewards_B), groups)[0])


def _ties(filled_B: Array, present_B: Array, groups: Members) -> Array:
    """(P,) whether the scored rewards of each group are equal up to rounding; also where there are none."""
    xp = array_namespace(filled_B)
    infinite = float("inf")
    high_P = xp.max(groups.gather(xp.where(present_B, filled_B, -infinite), -infinite), axis=1)
    low_P = xp.min(groups.gather(xp.where(present_B, filled_B, infinite), infinite), axis=1)
    size_P = xp.max(groups.gather(xp.abs(filled_B)), axis=1)
    rounding = TIE_ROUNDING * xp.finfo(filled_B.dtype).eps
    return high_P - low_P <= rounding * size_P  # without any sample -inf - inf = -inf, a tie


def _batch_std(filled_B: Array, present_B: Array, std: Std, batch_ids_B: Array | None) -> Array:
    """(B,) std of the present values of each sample's batch."""
    xp = array_namespace(filled_B)
    if batch_ids_B is None:
        return _std(filled_B, present_B, std) + xp.zeros_like(filled_B)
    batches = members(batch_ids_B)
    count_B = batches.sum(xp.astype(present_B, filled_B.dtype))[batches.index_B]
    mean_B = batches.sum(filled_B)[batches.index_B] / xp.clip(count_B, min=1.0)
    squares_B = xp.where(present_B, filled_B - mean_B, 0.0) ** 2
    return xp.sqrt(batches.sum(squares_B)[batches.index_B] / xp.clip(count_B - _ddof(std), min=1.0))


def _std(filled_B: Array, present_B: Array, std: Std) -> Array:
    """Scalar std of the present values; 0 where there are too few."""
    xp = array_namespace(filled_B)
    count = xp.sum(xp.astype(present_B, filled_B.dtype))
    mean = xp.sum(filled_B) / xp.clip(count, min=1.0)
    centred_B = xp.where(present_B, filled_B - mean, 0.0)
    return xp.sqrt(xp.sum(centred_B**2) / xp.clip(count - _ddof(std), min=1.0))


def _ddof(std: Std) -> float:
    return 1.0 if std == "sample" else 0.0
