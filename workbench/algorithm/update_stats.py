"""How a step is read: token weights, masks and importance weights in; each sample's share of the gradient,
the shares of clipped tokens and the effective sample size out. Over the array interface, like `token_grads.py`.
"""

from typing import NamedTuple

from array_api_compat import array_namespace

from workbench.algorithm.advantages import Array
from workbench.core.variants import RatioLevel


class ClipFractions(NamedTuple):
    """Shares of the loss tokens (of the completions at sequence level); `total` is what they are shares of."""

    low: float
    high: float
    region: float
    total: float


def clip_fractions(
    low_B_T: Array, high_B_T: Array, mask_B_T: Array, level: RatioLevel = "token"
) -> ClipFractions:
    """TRL's clip_ratio/{low,high,region}_mean, over tokens, or over completions with at least one token."""
    xp = array_namespace(low_B_T)
    mask = mask_B_T > 0
    low, high = low_B_T & mask, high_B_T & mask
    if level == "sequence":
        low, high, mask = (xp.any(part, axis=1) for part in (low, high, mask))
    count = float(xp.sum(xp.astype(mask, xp.float32)))
    low_sum, high_sum = (float(xp.sum(xp.astype(part, xp.float32))) for part in (low, high))
    return ClipFractions(
        low_sum / max(count, 1.0), high_sum / max(count, 1.0), (low_sum + high_sum) / max(count, 1.0), count
    )


def push_length(p_B_T: Array, sum_p2_B_T: Array | None = None) -> Array:
    """Euclidean norm of (one-hot - p), the logit direction that a token's log-probability pulls in.

    sqrt(1 - 2 p + sum p^2), with p of the sampled token and the sum over the vocabulary. Without the sum:
    sqrt(2) (1 - p), exact where one rival holds the rest, an upper bound otherwise.
    """
    xp = array_namespace(p_B_T)
    if sum_p2_B_T is None:
        return 2.0**0.5 * (1.0 - p_B_T)
    return xp.sqrt(xp.clip(1.0 - 2.0 * p_B_T + sum_p2_B_T, min=0.0))


def gradient_share(
    grad_B_T: Array, logp_B_T: Array, mask_B_T: Array, sum_p2_B_T: Array | None = None
) -> Array:
    """(B,) each sample's share of the step: sum over its tokens of |weight| x |one-hot - p|, divided by the
    sum over all samples.

    Sums to 1, or is all 0 in a step without signal. This is the length of each token's push on the logits,
    added up without regard to directions that cancel; |A| x length gives other shares, because sure tokens
    hardly move.
    """
    xp = array_namespace(grad_B_T)
    mask = mask_B_T > 0
    p = xp.exp(xp.where(mask, logp_B_T, 0.0))
    reach = push_length(p, None if sum_p2_B_T is None else xp.where(mask, sum_p2_B_T, 1.0))
    push_B = xp.sum(xp.where(mask, xp.abs(grad_B_T) * reach, 0.0), axis=1)
    total = xp.sum(push_B)
    return push_B / xp.where(total > 0, total, xp.ones_like(total))


def ess_fraction(weights: Array) -> float:
    """Kish effective sample size over n, (sum w)^2 / (n sum w^2): 1 = all count alike; 0 where every weight
    is 0."""
    xp = array_namespace(weights)
    squares = float(xp.sum(weights**2)) * weights.shape[0]
    return float(xp.sum(weights)) ** 2 / squares if squares > 0 else 0.0
