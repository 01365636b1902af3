"""Checks the closed forms of `theory`: trains bandits with the functions that train models, and compares end points.

Groups are enumerated (expected flow) or drawn with a fixed seed (sampled), scored, turned into advantages by
`advantages.py` and into d(loss)/d(log-prob) by `token_grads.py`; the policy's logits follow. Numpy only, some seconds.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages, token_grads
from workbench.algorithm.token_grads import Objective
from workbench.core.variants import KlEstimator, Scale, Std
from workbench.diagnose import theory
from workbench.record.files import write_json

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TOLERANCE = 0.01
"""Largest difference of an end point that counts as agreement."""


PANELS = {
    "Groups of 2, k3: eq 14": "p = ½ (1 − x + √((1 − x)² + 4 x p_ref)) with x = β. A small p_ref barely matters: the k3 penalty is weak "
    "there.",
    "Groups of 2, direct KL": "logit p = logit p_ref + 1/β, as in RLHF. k3 × ratio and k2 end here; k1 in the loss has no effect. "
    "TRL's defaults (sample std, k3 × ratio) end lower.",
    "Groups of 4 and 8, k3": "Where E[group std] = β (p − p_ref). Larger groups push harder against the same β.",
    "Large groups, k3": "With a verifier that is never wrong the end is eq 15, whatever the rewards are. With 30 % wrong verdicts the group's std "
    "holds that noise too: the corrected form is met, eq 15 is not.",
    "No division by the std": "Dr. GRPO: the size of the reward counts. The gradient of a gap of 1 in groups of 4 is ¾, of .6 in groups of 8 is .525.",
    "More outputs, more tokens": "Three outputs with rewards 1, ½ and 0; and outputs of two tokens, where a KL taken token by token ends below the form "
    "for whole sequences.",
}
"""The charts of the page, each with its caption."""
PAIRS, DIRECT, FINITE = "Groups of 2, k3: eq 14", "Groups of 2, direct KL", "Groups of 4 and 8, k3"
LARGE, NO_STD, MORE = "Large groups, k3", "No division by the std", "More outputs, more tokens"
TWO_TOKENS = "token-level k3: two tokens, G = 2"
SHOWN_BETA = (0.04, 4.0)


class Row(NamedTuple):
    """One comparison."""

    setting: str
    closed_form: float
    reached: float
    difference: float
    curve: str
    """Settings that differ in beta alone belong to one curve."""
    beta: float


class Curve(NamedTuple):
    """One closed form over beta, and the end points reached on it."""

    panel: str
    """The chart it belongs to."""
    name: str
    pi_ref: float
    beta: list[float]
    closed_form: list[float]
    reached: list[tuple[float, float]]
    """(beta, end point); none for a form that is only shown beside the right one."""
    sampled: bool
    """Whether groups were drawn rather than enumerated."""


class Task(NamedTuple):
    """One prompt with one-token outputs; output 0 is the better one, whose probability is compared."""

    curve: str
    closed_form: Callable[[float], float]
    """beta -> probability of output 0."""
    betas: tuple[float, ...]
    group_size: int = 2
    rewards: tuple[float, ...] = (1.0, 0.0)
    """Of each output; with `noisy` the probability that the verifier says 1."""
    pi_ref: tuple[float, ...] = (0.25, 0.75)
    kl_estimator: KlEstimator = "k3"
    std: Std = "population"
    scale: Scale = "group"
    noisy: bool = False
    draws: int = 0
    """Groups drawn in each of the sampled steps; 0 = the expected flow."""
    panel: str = ""
    """The chart it is drawn in; '' for the table alone."""
    name: str = ""
    """Label of its line there."""

    def objective(self, beta: float) -> Objective:
        return Objective(loss_type="grpo", beta=beta, kl_estimator=self.kl_estimator)


def tasks() -> list[Task]:
    """All bandit tasks, curve by curve."""
    betas = (0.1, 0.25, 0.5, 1.0, 2.0)
    a, b = 0.25, 0.05
    # fmt: off
    return [
        Task("eq 14: G = 2, k3", partial(theory.eq14, a), betas, panel=PAIRS, name="from .25"),
        Task("eq 14: G = 2, k3, reference .05", partial(theory.eq14, b), (0.04, 0.5, 1), pi_ref=(b, 1 - b),
             panel=PAIRS, name="from .05"),
        Task("eq 14: G = 2, k3, sampled", partial(theory.eq14, a), (0.5, 1.0), draws=512, panel=PAIRS),
        Task("direct KL: G = 2, k3 x ratio", partial(theory.direct_pair, a), betas, kl_estimator="k3_ratio",
             panel=DIRECT, name="k3 × ratio"),
        Task("direct KL: G = 2, k2", partial(theory.direct_pair, a), (0.35, 0.7), kl_estimator="k2",
             panel=DIRECT),
        Task("k1 in the loss has no effect", lambda beta: 1.0, (0.5, 2.0), kl_estimator="k1",
             panel=DIRECT, name="k1 in the loss"),
        Task("finite G = 4, k3", partial(theory.finite_group, a, group_size=4), (0.25, 1.0), 4,
             panel=FINITE, name="G = 4"),
        Task("finite G = 8, k3", partial(theory.finite_group, a, group_size=8), betas, 8,
             panel=FINITE, name="G = 8"),
        Task("finite G = 8, k3, sampled", partial(theory.finite_group, a, group_size=8),
             (0.5,), 8, draws=128, panel=FINITE),
        Task("finite G = 8, k3, sample std", partial(theory.finite_group, a, group_size=8, std="sample"),
             (0.25, 1.0), 8, std="sample"),
        Task("TRL's std and KL: G = 2",
             partial(theory.finite_group, a, group_size=2, std="sample", penalty="direct"),
             (0.5, 1.0), std="sample", kl_estimator="k3_ratio", panel=DIRECT, name="TRL's defaults"),
        Task("finite G = 256, direct KL, the lower of two",
             partial(theory.finite_group, 0.5, group_size=256, penalty="direct"),
             (2.0,), 256, pi_ref=(0.5, 0.5), kl_estimator="k3_ratio"),
        Task("eq 15: G = 256, k3, deterministic", partial(theory.eq15, a), (0.25, 0.5, 1.0, 2.0), 256,
             panel=LARGE, name="never wrong: eq 15"),
        Task("corrected eq 15: G = 256, verifier right .7 / .3",
             partial(theory.large_group_noisy, a, right_a=0.7, right_b=0.3),
             (0.25, 1.0), 256, (0.7, 0.3), noisy=True, draws=16, panel=LARGE, name="30 % wrong: corrected"),
        Task("no std: G = 4, k3", partial(theory.shift_only, a, gap=1.0, group_size=4),
             (0.5, 1.0), 4, scale="none", panel=NO_STD, name="k3, gap 1"),
        Task("no std: G = 8, direct KL, gap .6",
             partial(theory.shift_only, a, gap=0.6, group_size=8, penalty="direct"),
             (0.5, 1.0), 8, (0.6, 0.0), kl_estimator="k3_ratio", scale="none", panel=NO_STD,
             name="direct, gap .6"),
        Task("eq 11: three outputs, G = 4, k3",
             lambda beta: float(theory.multi_output((1, 0.5, 0), (0.25, 0.45, 0.3), beta, 4)[0]),
             (0.3, 1.0), 4, (1.0, 0.5, 0.0), (0.25, 0.45, 0.3), panel=MORE, name="three outputs: eq 11"),
    ]
    # fmt: on


def run() -> list[Row]:
    """All comparisons: end points of all tasks and of the two-token one, and the drift of the logit at some p."""
    rows = [
        _row(task.curve, beta, task.closed_form(beta), end_point(task, beta))
        for task in tasks()
        for beta in task.betas
    ]
    for beta in (0.5, 1.0):
        rows.append(_row(TWO_TOKENS, beta, theory.token_level(0.5, beta), two_token_end_point(beta)))
    return rows + list(_identities())


def stamp() -> str:
    """Hash of the code that is checked: results with another stamp are outdated."""
    sources = (theory, advantages, token_grads)
    files = [Path(str(module.__file__)) for module in sources] + [Path(__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def report() -> dict[str, Any]:
    """Everything that the Theory page shows, as plain values."""
    started = time.perf_counter()
    rows = run()
    return {
        "stamp": stamp(),
        "made": time.time(),
        "rows": [row._asdict() for row in rows],
        "curves": [curve._asdict() for curve in curves(rows)],
        "panels": PANELS,
        "tolerance": TOLERANCE,
        "beta_range": SHOWN_BETA,
        "seconds": time.perf_counter() - started,
    }


def curves(rows: Sequence[Row]) -> list[Curve]:
    """The closed forms over beta, each with the end points of `rows` that lie on it."""
    betas = [float(beta) for beta in np.geomspace(*SHOWN_BETA, 33)]
    found = []
    for task in tasks():
        if task.panel:
            # The same curve with drawn groups or another estimator adds points, not a second line.
            line = [task.closed_form(beta) for beta in betas] if task.name else []
            found.append(
                _curve(task.panel, task.name, task.pi_ref[0], betas, line, rows, task.curve, task.draws > 0)
            )
    wrong = [theory.eq15(0.25, beta) for beta in betas]
    found.append(_curve(LARGE, "30 % wrong: eq 15 fails", 0.25, betas, wrong, (), "", False))
    two = [theory.token_level(0.5, beta) for beta in betas]
    found.append(_curve(MORE, "two tokens, k3 a token", 0.25, betas, two, rows, TWO_TOKENS, False))
    sequence = [theory.eq14(0.25, beta) for beta in betas]
    return [*found, _curve(MORE, "two tokens, eq 14 fails", 0.25, betas, sequence, (), "", False)]


def _curve(
    panel: str,
    name: str,
    pi_ref: float,
    betas: list[float],
    line: list[float],
    rows: Sequence[Row],
    curve: str,
    sampled: bool,
) -> Curve:
    reached = [(row.beta, row.reached) for row in rows if row.curve == curve]
    return Curve(panel, name, pi_ref, betas if line else [], line, reached, sampled)


def _row(curve: str, beta: float, closed_form: float, reached: float, point: str = "") -> Row:
    setting = f"{curve}, beta = {beta:g}{point}"
    return Row(setting, closed_form, reached, reached - closed_form, curve, beta)


def _identities() -> Iterator[Row]:
    """d logit/dt = E[group std] - beta (p - pi_ref), compared with the gradient of the loss."""
    for group_size in (2, 8):
        for p in (0.05, 0.3, 0.8):
            task = Task(f"d logit/dt at G = {group_size}", lambda beta: beta, (0.5,), group_size)
            expected = theory.group_statistics(p, group_size).expected_pop_std - 0.5 * (p - task.pi_ref[0])
            uphill = ascent(task, 0.5, np.log([p, 1 - p]), *enumerated(task, np.log([p, 1 - p])))
            yield _row(task.curve, 0.5, expected, float(uphill[0]), f", p = {p:g}")


# -- one-token tasks -------------------------------------------------------------------------------


def ascent(
    task: Task, beta: float, logits_V: Floats, output_B: Ints, reward_B: Floats, chance_B: Floats
) -> Floats:
    """(V,) minus the gradient of the loss in the logits (V,), from (B,) samples; each `task.group_size` in a row are a
    group.

    `chance_B`: weight of each sample's group: its probability, or 1 where it was drawn.
    """
    log_pi = _log_softmax(logits_V)
    ids_B = np.arange(len(output_B)) // task.group_size
    found = advantages.compute(reward_B, ids_B, scale=task.scale, std=task.std, eps=0.0)
    one_B = np.ones(len(output_B))
    token = token_grads.loss_grads(
        log_pi[output_B][:, None],
        None,
        np.log(task.pi_ref)[output_B][:, None],
        None,
        found.advantages_B,
        one_B[:, None],
        task.objective(beta),
        token_grads.normalizer(one_B, ids_B, sample_weights_B=chance_B),
    ).grad_B_T[:, 0]
    return np.asarray(np.exp(log_pi) * token.sum() - np.bincount(output_B, token, len(logits_V)))


def enumerated(task: Task, logits_V: Floats) -> tuple[Ints, Floats, Floats]:
    """Every possible group with its probability: outputs, rewards and probabilities, each (B,)."""
    counts_M_V = _groups(task.group_size, len(logits_V))
    log_chance_M = _log_orders(task.group_size, len(logits_V)) + counts_M_V @ _log_softmax(logits_V)
    likely = log_chance_M > np.log(1e-10)
    counts_M_V = counts_M_V[likely]
    output_B = np.repeat(np.tile(np.arange(len(logits_V)), len(counts_M_V)), counts_M_V.ravel())
    return (
        output_B,
        np.array(task.rewards)[output_B],
        np.repeat(np.exp(log_chance_M[likely]), task.group_size),
    )


def drawn(task: Task, logits_V: Floats, rng: np.random.Generator) -> tuple[Ints, Floats, Floats]:
    """`task.draws` groups sampled from the policy and scored: outputs, rewards and weights 1, each (B,)."""
    output_B = rng.choice(len(logits_V), size=task.draws * task.group_size, p=np.exp(_log_softmax(logits_V)))
    reward_B = np.array(task.rewards)[output_B]
    if task.noisy:
        reward_B = (rng.random(len(output_B)) < reward_B).astype(float)
    return output_B, reward_B, np.ones(len(output_B))


def end_point(task: Task, beta: float) -> float:
    """Probability of output 0 where training converges; with drawn groups at the mean logits of the second half."""
    logits_V = np.log(np.array(task.pi_ref))
    if not task.draws:
        rest_V = _climb(lambda z: ascent(task, beta, z, *enumerated(task, z)), logits_V)
        return float(np.exp(_log_softmax(rest_V))[0])
    rng, tail = np.random.default_rng(0), []
    for step in range(400):
        rate = 8.0 / (1 + step / 30)
        logits_V = logits_V + rate * ascent(task, beta, logits_V, *drawn(task, logits_V, rng))
        if step >= 200:
            tail.append(logits_V)
    return float(np.exp(_log_softmax(np.mean(tail, axis=0)))[0])


# -- outputs of two tokens -------------------------------------------------------------------------


def two_token_end_point(beta: float) -> float:
    """P(aa) where training converges: tokens a and b, reward 1 for aa alone, uniform reference, groups of 2, k3.

    Three logits of a: for the first token, for the second after a, and after b.
    """
    tokens_S_T = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    place_S_T = np.array([[0, 1], [0, 1], [0, 2], [0, 2]])  # which logit decides
    counts_M_S = _groups(2, 4)
    output_B = np.repeat(np.tile(np.arange(4), len(counts_M_S)), counts_M_S.ravel())
    ids_B = np.arange(len(output_B)) // 2
    tokens, place = tokens_S_T[output_B], place_S_T[output_B]
    found = advantages.compute((output_B == 0).astype(float), ids_B, std="population", eps=0.0)

    def uphill(logit_3: Floats) -> Floats:
        log_p = np.stack([-np.logaddexp(0, -logit_3), -np.logaddexp(0, logit_3)])  # of a, of b
        log_output_S = log_p[tokens_S_T, place_S_T].sum(1)
        chance_B = np.repeat(np.exp(_log_orders(2, 4) + counts_M_S @ log_output_S), 2)
        n = token_grads.normalizer(np.full(len(output_B), 2.0), ids_B, sample_weights_B=chance_B)
        grad_B_T = token_grads.loss_grads(
            log_p[tokens, place],
            None,
            np.full(tokens.shape, np.log(0.5)),
            None,
            found.advantages_B,
            np.ones(tokens.shape),
            Objective(loss_type="grpo", beta=beta),
            n,
        ).grad_B_T
        slope_B_T = (tokens == 0) - np.exp(log_p[0])[place]
        return np.asarray(-np.bincount(place.ravel(), (grad_B_T * slope_B_T).ravel(), 3), np.float64)

    first, after_a, _ = _climb(uphill, np.zeros(3))
    return theory.sigmoid(first) * theory.sigmoid(after_a)


# -- numerics --------------------------------------------------------------------------------------


def _climb(uphill: Callable[[Floats], Floats], start: Floats, steps: int = 250) -> Floats:
    """Follows a gradient to where it vanishes, by its signs (Rprop).

    A step grows while its sign stays and halves when it changes, so flat regions near 0 and 1 take no more
    iterations than steep ones. Ends when every step is below 1e-5 in the logits.
    """
    place, size, before = start, np.full(len(start), 0.05), np.zeros(len(start))
    for _ in range(steps):
        sign = np.sign(uphill(place))
        size = np.clip(size * np.where(sign * before < 0, 0.5, 1.2), 1e-9, 0.25)
        place, before = place + sign * size, sign
        if np.max(size) < 1e-5:
            break
    return place


@lru_cache(maxsize=32)
def _groups(group_size: int, outputs: int) -> Ints:
    """(M, V) count of each output in each possible group."""
    return np.array(theory.compositions(group_size, outputs), np.int64)


@lru_cache(maxsize=32)
def _log_orders(group_size: int, outputs: int) -> Floats:
    """(M,) log of the number of orders in which each group can be drawn."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, group_size + 1)))])
    return np.asarray(log_factorial[group_size] - log_factorial[_groups(group_size, outputs)].sum(1))


def _log_softmax(logits_V: Any) -> Floats:
    return np.asarray(logits_V - np.logaddexp.reduce(logits_V))


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), report())
