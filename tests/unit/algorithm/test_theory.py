"""Closed forms against each other, against simulation of the sampling they describe, and at their limits."""

import math
from itertools import product

import numpy as np
import pytest

from workbench.algorithm import advantages as adv
from workbench.diagnose import theory


def test_the_published_table_of_end_points() -> None:
    """2502.18548, k3 and direct KL for three references."""
    refs = (0.001, 0.05, 0.5)
    rows = {
        0.04: ((0.960, 0.962, 0.980), (1, 1, 1), (0.998, 0.999, 1.0)),
        0.5: ((0.501, 0.546, 0.809), (0.007, 0.280, 0.881), (0.800, 0.819, 0.947)),
        1.0: ((0.032, 0.224, 0.707), (0.003, 0.125, 0.731), (0.501, 0.548, 0.854)),
    }
    for beta, (k3, direct, large) in rows.items():
        assert [theory.eq14(ref, beta) for ref in refs] == pytest.approx(k3, abs=6e-4)
        assert [theory.direct_pair(ref, beta) for ref in refs] == pytest.approx(direct, abs=6e-4)
        assert [theory.eq15(ref, beta) for ref in refs] == pytest.approx(large, abs=1.1e-3)


def test_beta_equal_to_gamma_ends_at_the_root_of_the_reference_and_never_below_the_bound() -> None:
    for ref in (0.01, 0.25, 0.9):
        assert theory.eq14(ref, 0.7, 0.7) == pytest.approx(math.sqrt(ref))
        for beta in (0.01, 0.5, 3.0, 1e6):
            assert theory.eq14(ref, beta) >= max(1 - beta, ref) - 1e-12
            assert theory.eq15(ref, beta) >= 1 / (1 + beta**2)


def test_a_preference_for_the_other_output_mirrors_the_end_point() -> None:
    assert theory.eq14(0.3, 0.5, -0.8) == pytest.approx(1 - theory.eq14(0.7, 0.5, 0.8))
    assert theory.finite_group(0.3, 0.5, 6, rewards=(0, 1)) == pytest.approx(
        1 - theory.finite_group(0.7, 0.5, 6)
    )


def test_small_groups_reach_eq_14_and_huge_groups_eq_15() -> None:
    assert theory.finite_group(0.25, 0.5, 2) == pytest.approx(theory.eq14(0.25, 0.5))
    assert theory.finite_group(0.25, 1.0, 3) == pytest.approx(theory.eq14(0.25, 1 / math.sqrt(2)))
    assert theory.finite_group(0.25, 0.5, 2, "sample") == pytest.approx(
        theory.eq14(0.25, 0.5, math.sqrt(0.5))
    )
    assert theory.finite_group(0.25, 1.0, 4000) == pytest.approx(theory.eq15(0.25, 1.0), abs=1e-3)
    assert theory.finite_group(0.25, 0.5, 2, penalty="direct") == pytest.approx(theory.direct_pair(0.25, 0.5))


def test_trls_defaults_end_elsewhere() -> None:
    assert theory.finite_group(0.25, 0.5, 2, "sample") == pytest.approx(0.592, abs=5e-4)
    assert theory.finite_group(0.25, 0.5, 2, "sample", penalty="direct") == pytest.approx(0.5782, abs=1e-4)


def test_eq_15_fails_for_noisy_rewards_as_stated() -> None:
    assert theory.large_group_noisy(0.25, 0.25, 0.6, 0.4) == pytest.approx(0.625, abs=5e-4)
    assert theory.large_group_noisy(0.25, 1.0, 1.0, 0.0) == pytest.approx(theory.eq15(0.25, 1.0))


@pytest.mark.parametrize(
    "group_size, std, eps, gap",
    [
        (2, "population", 0.0, 1.0),
        (5, "sample", 1e-4, 1.0),
        (4, "sample", 0.5, 0.3),
        (3, "population", 0.1, -2.0),
    ],
)
def test_the_expected_push_is_the_advantages_enumerated_over_all_groups(
    group_size: int, std: str, eps: float, gap: float
) -> None:
    p, total = 0.3, 0.0
    for picks in product((1, 0), repeat=group_size):
        rewards = np.array([gap if pick else 0.0 for pick in picks])
        advantages = adv.compute(rewards, np.zeros(group_size, int), std=std, eps=eps).advantages_B
        chance = math.prod(p if pick else 1 - p for pick in picks)
        total += chance * float(np.mean(advantages * (np.array(picks) - p)))
    assert theory.expected_push(p, group_size, std, eps, gap) == pytest.approx(total)


def test_stationary_points_have_no_drift_and_two_can_be_stable() -> None:
    points = theory.stationary_points(lambda p: theory.expected_push(p, 256), 0.5, 2.0, "direct")
    assert [point.stable for point in points] == [True, False, True]
    assert [point.p for point in points[::2]] == pytest.approx([0.764, 0.99956], abs=5e-4)
    for point in points:
        pull = 2 * point.p * (1 - point.p) * theory.logit(point.p)
        assert theory.expected_push(point.p, 256) == pytest.approx(pull, abs=1e-9)


def test_direct_kl_collapses_below_the_critical_beta() -> None:
    for ref, critical in ((0.05, 0.571), (0.25, 0.988), (0.5, 1.509)):
        assert theory.beta_critical(ref) == pytest.approx(critical, abs=5e-4)
        below, above = (
            theory.direct_large_group_roots(ref, theory.beta_critical(ref) * f) for f in (0.999, 1.001)
        )
        assert math.isnan(below.stable) and above.stable < above.unstable < 1
        root = math.sqrt(above.stable * (1 - above.stable))
        assert 1.001 * theory.beta_critical(ref) * root * (
            theory.logit(above.stable) - theory.logit(ref)
        ) == pytest.approx(1)


@pytest.mark.parametrize("penalty, std", [("k3", "population"), ("direct", "sample")])
def test_two_outputs_of_many_are_the_two_output_formula(penalty: str, std: str) -> None:
    found = theory.multi_output([1, 0], [0.25, 0.75], 0.7, 6, std, penalty=penalty)
    assert found[0] == pytest.approx(theory.finite_group(0.25, 0.7, 6, std, penalty=penalty))
    assert found.sum() == pytest.approx(1)


def test_many_outputs_satisfy_equation_11_with_the_preference_enumerated() -> None:
    rewards, ref, beta, size = [1.0, 0.5, 0.0, 0.5], [0.1, 0.4, 0.3, 0.2], 0.4, 3
    pi = theory.multi_output(rewards, ref, beta, size)
    for own in range(4):
        preference = 0.0
        for others in product(range(4), repeat=size - 1):
            drawn = np.array([rewards[own], *(rewards[o] for o in others)])
            preference += (
                math.prod(pi[o] for o in others)
                * adv.compute(drawn, np.zeros(size, int), std="population", eps=0).advantages_B[0]
            )
        assert (1 - preference / beta) * pi[own] == pytest.approx(ref[own], abs=1e-8)


def test_one_token_answers_are_the_sequence_level_formula_and_two_tokens_are_not() -> None:
    assert theory.token_level(0.25, 0.5, length=1) == pytest.approx(theory.eq14(0.25, 0.5))
    assert theory.token_level(0.5, 0.5, length=2) == pytest.approx(0.630, abs=5e-4)
    assert theory.token_level(0.5, 0.5, length=2, penalty="direct") != pytest.approx(
        theory.direct_pair(0.25, 0.5), abs=1e-3
    )


def test_dead_groups_and_the_sizes_that_avoid_them() -> None:
    assert [theory.min_group_size(p, q) for p, q in ((0.5, 0.9), (0.1, 0.9), (0.01, 0.5))] == [5, 22, 69]
    shares = [theory.group_statistics(0.5, g).expected_pop_std / 0.5 for g in (2, 4, 8, 16)]
    assert shares == pytest.approx([0.5, 0.81, 0.93, 0.97], abs=6e-3)
    assert [theory.group_statistics(0.1, g).p_zero_variance for g in (2, 4, 8, 16)] == pytest.approx(
        [0.82, 0.66, 0.43, 0.19], abs=5e-3
    )
    with pytest.raises(ValueError, match="group size"):
        theory.min_group_size(1.0, 0.5)


def test_time_to_half_follows_the_flow() -> None:
    p, time, step = 0.1, 0.0, 5e-3
    while p < 0.5:
        p = theory.sigmoid(theory.logit(p) + step * theory.expected_push(p, 8))
        time += step
    assert theory.time_to_half(0.1, 8).time == pytest.approx(time, abs=2e-2)
    assert theory.time_to_half(0.001, 8).time == pytest.approx(
        theory.time_to_half(0.001, 8).small_p_estimate, rel=0.05
    )
    assert theory.time_to_half(0.1, 8, beta=2.0).time == math.inf
    assert theory.time_to_half(0.1, 8, beta=0.1).time > theory.time_to_half(0.1, 8).time
    assert theory.time_to_half(0.5, 8).time == 0


def test_gaussian_estimator_errors_are_those_of_samples() -> None:
    rng, mu = np.random.default_rng(0), 0.5
    d = mu * rng.normal(size=400_000) - mu**2 / 2
    found, true = theory.gaussian_kl(mu), mu**2 / 2
    assert (np.mean(d**2 / 2) - true) / true == pytest.approx(found.bias_k2_over_true, abs=0.01)
    for estimate, std in (
        (-d, found.std_k1_over_true),
        (d**2 / 2, found.std_k2_over_true),
        (np.expm1(d) - d, found.std_k3_over_true),
    ):
        assert np.std(estimate) / true == pytest.approx(std, rel=0.02)
