"""Closed forms of GRPO's stationary policies: settings in, probabilities, times and group sizes out.

One prompt, outputs drawn from a softmax policy, exact expectations, on-policy. `a` is the better of two
outputs, p its probability, pi_ref that under the reference. Equation numbers are those of 2502.18548v3; where
a form corrects or extends it, the function says so ("own"). The gradient flow in the logit of p is

    d logit/dt = E[group std of the rewards] - beta (p - pi_ref)                           (penalty k3)
    d logit/dt = E[group std of the rewards] - beta p (1-p) (logit p - logit pi_ref)       (penalty direct)

k3 is what GRPO's estimator differentiates to, grad KL(reference || policy); direct is the gradient of
KL(policy || reference).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.core.variants import Std

Penalty = Literal["k3", "direct"]
Floats = NDArray[np.float64]

FAR = 60.0
"""Logits are searched up to here: p = 1 - 1e-26."""


def logit(p: float) -> float:
    """log(p / (1 - p))."""
    return math.log(p) - math.log1p(-p)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


# -- two outputs, pairs and infinite groups --------------------------------------------------------


def eq14(pi_ref: float, beta: float, gamma: float = 1.0) -> float:
    """p for groups of 2 with the k3 penalty; gamma = P(a beats b) - P(b beats a).

    Never below max(1 - beta / gamma, pi_ref). For the sample std give gamma / sqrt(2).
    """
    if gamma < 0:
        return 1.0 - eq14(1.0 - pi_ref, beta, -gamma)
    if gamma == 0:
        return pi_ref
    x = beta / gamma
    root = math.sqrt((1.0 - x) ** 2 + 4.0 * x * pi_ref)
    return (1.0 - x + root) / 2.0 if x <= 1 else 2.0 * x * pi_ref / (x - 1.0 + root)


def direct_pair(pi_ref: float, beta: float, gamma: float = 1.0) -> float:
    """p for groups of 2 with the direct KL: the logit is shifted by gamma / beta (section 3, B.2)."""
    return sigmoid(logit(pi_ref) + (gamma / beta if beta else math.copysign(math.inf, gamma)))


def eq15(pi_ref: float, beta: float) -> float:
    """p for G -> infinity with the k3 penalty, at least 1 / (1 + beta^2); *deterministic* rewards only."""
    b2 = beta * beta
    return (2 * b2 * pi_ref + 1 + math.sqrt(1 + 4 * b2 * pi_ref * (1 - pi_ref))) / (2 * (1 + b2))


def large_group_noisy(
    pi_ref: float, beta: float, right_a: float, right_b: float, penalty: Penalty = "k3"
) -> float:
    """p for G -> infinity when the verifier says "right" with probability right_a for a and right_b for b.

    Correction to eq 15: the std a group divides by includes the noise of the rewards, not only the spread of
    their expectations: p (1-p) (right_a - right_b) / sqrt(r (1-r)) = penalty, r = p right_a + (1-p) right_b.
    """

    def push(p: float) -> float:
        r = p * right_a + (1 - p) * right_b
        return p * (1 - p) * (right_a - right_b) / math.sqrt(r * (1 - r)) if 0 < r < 1 else 0.0

    return settle(push, pi_ref, beta, penalty)


def shift_only(pi_ref: float, beta: float, gap: float, group_size: int, penalty: Penalty = "k3") -> float:
    """p without dividing by the std (Dr. GRPO): eq 14 or the logistic with gamma = (1 - 1/G) x reward gap.

    With the direct KL this is RLHF at beta G / (G - 1). (section 3)
    """
    gamma = (1.0 - 1.0 / group_size) * gap
    return eq14(pi_ref, beta, gamma) if penalty == "k3" else direct_pair(pi_ref, beta, gamma)


def beta_critical(pi_ref: float) -> float:
    """Below this beta the direct KL with G -> infinity has no interior stationary point and p runs to 1.

    Root of sqrt(1 + b^2) / b = asinh b - logit(pi_ref) / 2; own derivation from B.2.
    """

    def balance(log_beta: float) -> float:
        beta = math.exp(log_beta)
        return math.asinh(beta) - logit(pi_ref) / 2 - math.hypot(1, beta) / beta

    return math.exp(_bisect(balance, -FAR, FAR))


class Roots(NamedTuple):
    """Two stationary points; NaN where there are none."""

    stable: float
    unstable: float


def direct_large_group_roots(pi_ref: float, beta: float) -> Roots:
    """Direct KL, G -> infinity: roots of 1 = beta sqrt(p (1-p)) (logit p - logit pi_ref).

    Only the lower is a maximum (B.2 speaks of two); past the upper one p = 1 attracts.
    """

    def balance(x: float) -> float:
        return beta * (x - logit(pi_ref)) / (2 * math.cosh(x / 2)) - 1.0

    peak = 2 * math.asinh(beta_critical(pi_ref))  # where the penalty is strongest, whatever beta
    if balance(peak) < 0:
        return Roots(math.nan, math.nan)
    return Roots(sigmoid(_bisect(balance, logit(pi_ref), peak)), sigmoid(_bisect(balance, peak, 4 * FAR)))


# -- two outputs, any group size -------------------------------------------------------------------


@lru_cache(maxsize=64)
def _log_choose(n: int) -> Floats:
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(n + 1), 1)))
    return np.asarray(log_factorial[n] - log_factorial - log_factorial[::-1])


def binomial(n: int, p: float) -> Floats:
    """(n + 1,) probabilities C(n, k) p^k (1-p)^(n-k) of k = 0..n successes."""
    k = np.arange(n + 1)
    if p <= 0 or p >= 1:
        return np.asarray(k == (0 if p <= 0 else n), np.float64)
    return np.asarray(np.exp(_log_choose(n) + k * math.log(p) + (n - k) * math.log1p(-p)))


def expected_push(
    p: float, group_size: int, std: Std = "population", eps: float = 0.0, gap: float = 1.0
) -> float:
    """The reward part of d logit/dt, unit learning rate, rewards of a and b differing by `gap`.

    With eps 0 it is E[population std] / |gap| = E_K sqrt(K (G-K)) / G, K ~ Bin(G, p), times sqrt((G-1)/G) for
    sample std. (own)
    """
    g = group_size
    k = np.arange(g + 1)
    count = max(g - 1, 1) if std == "sample" else g
    spread = np.abs(gap) * np.sqrt(k * (g - k) / (g * count))
    mixed = spread > 0
    push = np.divide(gap * k * (g - k) / g**2, spread + eps, out=np.zeros(g + 1), where=mixed)
    return float(binomial(g, p) @ push)


def finite_group(
    pi_ref: float,
    beta: float,
    group_size: int,
    std: Std = "population",
    eps: float = 0.0,
    penalty: Penalty = "k3",
    rewards: tuple[float, float] = (1.0, 0.0),
) -> float:
    """p for groups of any size: the first stable point that the flow reaches from pi_ref. (own)

    With the direct KL there may be a second one nearer 1: `stationary_points` lists all.
    """
    return settle(
        lambda p: expected_push(p, group_size, std, eps, rewards[0] - rewards[1]), pi_ref, beta, penalty
    )


class Point(NamedTuple):
    """A stationary point of the flow."""

    p: float
    stable: bool


def stationary_points(
    push: Callable[[float], float], pi_ref: float, beta: float, penalty: Penalty = "k3", grid: int = 2400
) -> list[Point]:
    """All sign changes of push(p) - beta x penalty over logits from -30 to 30, ascending.

    Pairs closer together than one step of the grid, .025 in logit, are missed.
    """
    drift = _drift(push, pi_ref, beta, penalty)
    logits = np.linspace(-FAR / 2, FAR / 2, grid + 1)
    values = [drift(float(x)) for x in logits]
    return [
        Point(sigmoid(_bisect(drift, float(logits[i]), float(logits[i + 1]))), values[i] > 0)
        for i in range(grid)
        if values[i] * values[i + 1] < 0
    ]


def settle(
    push: Callable[[float], float], pi_ref: float, beta: float, penalty: Penalty = "k3", step: float = 0.02
) -> float:
    """The stationary p that the flow d logit/dt = push(p) - beta x penalty reaches from pi_ref."""
    drift = _drift(push, pi_ref, beta, penalty)
    x = logit(pi_ref)
    direction = math.copysign(1.0, drift(x))
    if drift(x) == 0:
        return pi_ref
    while abs(x) < FAR and drift(x + direction * step) * direction > 0:
        x += direction * step
    return sigmoid(_bisect(drift, x, x + direction * step)) if abs(x) < FAR else sigmoid(x)


def _drift(
    push: Callable[[float], float], pi_ref: float, beta: float, penalty: Penalty
) -> Callable[[float], float]:
    def drift(x: float) -> float:
        p = sigmoid(x)
        slope = p - pi_ref if penalty == "k3" else p * sigmoid(-x) * (x - logit(pi_ref))
        return push(p) - beta * slope

    return drift


# -- groups ----------------------------------------------------------------------------------------


class GroupStatistics(NamedTuple):
    """Expectations over a group of G completions, each right with probability p (rewards 0 and 1)."""

    p_zero_variance: float
    """p^G + (1-p)^G: no signal."""
    expected_pop_std: float
    expected_logit_gradient_pop: float
    """d logit/dt with population std: the same number as the expected std."""
    expected_logit_gradient_trl_std_eps0: float
    S_G: float
    """That gradient over p (1-p), the one of groups of 2 (own, from eq 6)."""
    expected_groups_drawn_per_kept_group: float
    """Dynamic sampling: 1 / (1 - p^G - (1-p)^G)."""


def group_statistics(p: float, group_size: int) -> GroupStatistics:
    """Zero-variance probability p^G + (1-p)^G, expected std and gradients; see the fields."""
    dead = p**group_size + (1 - p) ** group_size
    std = expected_push(p, group_size)
    return GroupStatistics(
        dead,
        std,
        std,
        expected_push(p, group_size, "sample"),
        std / (p * (1 - p)) if 0 < p < 1 else math.nan,
        1 / (1 - dead) if dead < 1 else math.inf,
    )


def min_group_size(p: float, prob_mixed_at_least: float) -> int:
    """Smallest G with 1 - p^G - (1-p)^G >= `prob_mixed_at_least`, the probability of a mixed group."""
    if not (0 < p < 1 and prob_mixed_at_least < 1):
        raise ValueError(
            f"p = {p} and {prob_mixed_at_least} must lie inside 0 and 1: no group size would do."
        )
    size = 2
    while 1 - p**size - (1 - p) ** size < prob_mixed_at_least:
        size += 1
    return size


class TimeToHalf(NamedTuple):
    """Units: learning rate x steps."""

    time: float
    small_p_estimate: float
    """1 / (p0 sqrt(G - 1)): a rare success alone in its group."""


def time_to_half(
    p0: float, group_size: int, beta: float = 0.0, pi_ref: float | None = None, std: Std = "population"
) -> TimeToHalf:
    """Time of the flow with the k3 penalty from p0 to 1/2, the integral of dx / drift(x) over logits x; infinite where the
    penalty stops it before.

    `pi_ref` defaults to p0.
    """
    estimate = 1 / (p0 * math.sqrt(group_size - 1)) if group_size > 1 else math.inf
    drift = _drift(lambda p: expected_push(p, group_size, std), p0 if pi_ref is None else pi_ref, beta, "k3")
    logits = np.linspace(logit(p0), 0.0, 4001)
    speed = np.array([drift(float(x)) for x in logits])
    if p0 < 0.5 and speed.min() <= 0:
        return TimeToHalf(math.inf, estimate)
    return TimeToHalf(max(float(np.trapezoid(1 / speed, logits)), 0.0), estimate)


# -- many outputs, several tokens ------------------------------------------------------------------


def multi_output(
    rewards: Sequence[float],
    pi_ref: Sequence[float],
    beta: float,
    group_size: int,
    std: Std = "population",
    eps: float = 0.0,
    penalty: Penalty = "k3",
) -> Floats:
    """(K,) stationary policy over K outputs with fixed rewards.

    Eq 11, (1 - (P_G(o) - E P_G) / beta) pi(o) = pi_ref(o), or pi ~ pi_ref exp(P_G / beta) for the direct KL.
    P_G(o) is o's expected advantage among G - 1 other draws, enumerated (ValueError where they are too many).
    """
    r, ref = np.asarray(rewards, np.float64) - np.mean(rewards), np.asarray(pi_ref, np.float64)
    others = np.array(compositions(group_size - 1, len(r)), np.float64)
    mean = (others @ r)[:, None] / group_size + r / group_size
    square = (others @ r**2)[:, None] / group_size + r**2 / group_size
    bessel = group_size / max(group_size - 1, 1) if std == "sample" else 1.0
    variance = np.maximum(square - mean**2, 0) * bessel
    tied = variance <= 1e-14 * np.max(r**2, initial=1e-300)
    advantage = np.where(tied, 0.0, (r - mean) / np.where(tied, 1.0, np.sqrt(variance) + eps))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, group_size + 1)))])
    log_count = log_factorial[group_size - 1] - log_factorial[others.astype(int)].sum(1)

    def force(z: Floats) -> Floats:
        log_pi = z - np.logaddexp.reduce(z)
        preference = np.exp(log_count + others @ log_pi) @ advantage
        centred = preference - np.exp(log_pi) @ preference
        if penalty == "k3":
            return np.asarray(centred - beta * (1 - ref * np.exp(-log_pi)))
        drift = log_pi - np.log(ref)
        return np.asarray(centred - beta * (drift - np.exp(log_pi) @ drift))

    z = _steady(force, np.log(ref))
    return np.asarray(np.exp(z - np.logaddexp.reduce(z)))


def token_level(
    pi_ref: float,
    beta: float,
    length: int = 2,
    group_size: int = 2,
    std: Std = "population",
    penalty: Penalty = "k3",
) -> float:
    """Probability of the one right completion of `length` tokens when the KL is taken token by token. (own)

    Implementations do that, on the policy's own prefixes; eq 14 (at pi_ref^length) is for whole sequences.
    `pi_ref`: probability of each right token under the reference.
    """
    ref = logit(pi_ref)

    def force(x: Floats) -> Floats:
        p = 1 / (1 + np.exp(-x))
        sequence = float(np.prod(p))
        prefix = np.concatenate([[1.0], np.cumprod(p)[:-1]])
        slope = p - pi_ref if penalty == "k3" else p * (1 - p) * (x - ref)
        push = expected_push(sequence, group_size, std) * (1 - p) / (1 - sequence)
        return np.asarray(push - beta * prefix * slope)

    return float(np.prod(1 / (1 + np.exp(-_steady(force, np.full(length, ref))))))


# -- KL estimators ---------------------------------------------------------------------------------


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p || q) = sum p log(p / q), nats, of two (K,) distributions."""
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


class GaussianKL(NamedTuple):
    """Schulman's comparison of the estimators of KL(q || p), x ~ q = N(0, 1), p = N(mu, 1)."""

    true: float
    bias_k2_over_true: float
    std_k1_over_true: float
    std_k2_over_true: float
    std_k3_over_true: float


def gaussian_kl(mu: float) -> GaussianKL:
    """In closed form: the log-ratio is itself normal, with mean -mu^2 / 2 and variance mu^2."""
    m2 = mu * mu
    return GaussianKL(m2 / 2, m2 / 4, 2 / abs(mu), math.sqrt(2 + m2), 2 * math.sqrt(math.expm1(m2) - m2) / m2)


# -- numerics --------------------------------------------------------------------------------------


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """A root of f between two points where its sign differs."""
    sign = math.copysign(1.0, f(low))
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if f(middle) * sign > 0 else (low, middle)
    return (low + high) / 2


def _steady(force: Callable[[Floats], Floats], z: Floats) -> Floats:
    """Stationary point of dz/dt = force(z), starting from z.

    Implicit Euler with growing steps: it follows the flow at first and becomes Newton's method.
    """
    step, size = 0.1, 1e-6
    for _ in range(400):
        now = force(z)
        jacobian = np.stack(
            [(force(z + size * e) - force(z - size * e)) / (2 * size) for e in np.eye(len(z))], axis=1
        )
        move = np.linalg.solve(np.eye(len(z)) / step - jacobian, now)
        z = z + np.clip(move, -0.5, 0.5)
        if np.max(np.abs(move)) < 1e-13 and step > 1e3:
            return z
        step = min(step * 1.3, 1e7)
    return z


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """All count vectors of `total` draws among `parts` outputs."""
    if math.comb(total + parts - 1, parts - 1) > 300_000:
        raise ValueError(f"{total + 1} draws of {parts} outputs are too many combinations to enumerate.")
    edges = [(-1, *bars, total + parts - 1) for bars in combinations(range(total + parts - 1), parts - 1)]
    return [tuple(b - a - 1 for a, b in pairwise(edge)) for edge in edges]
