"""Adaptive group sizes: their bias enumerated, measured through the advantages themselves, and undone."""

import math

import numpy as np
import pytest

from workbench.algorithm import advantages as adv
from workbench.diagnose.stopping import Plan, ends, outcome, unbiased_weights

FIXED = Plan(8, 8, 8)
MIXED = Plan(4, 4, 16)
CERTAIN = Plan(4, 4, 16, "until_certain")
RATES = (0.01, 0.1, 0.3, 0.5, 0.8)


def test_ends_are_a_probability_distribution() -> None:
    for plan in (FIXED, MIXED, CERTAIN, Plan(3, 2, 8, "until_certain", 0.1)):
        for p in RATES:
            assert sum(count * p**r * (1 - p) ** w for (r, w), count in ends(plan).items()) == pytest.approx(
                1
            )


def test_a_fixed_size_is_unbiased_and_loses_the_groups_that_theory_says() -> None:
    for p in RATES:
        found = outcome(FIXED, p)
        assert found.bias == pytest.approx(1) and found.samples == pytest.approx(8)
        assert found.dead == pytest.approx(p**8 + (1 - p) ** 8)


def test_until_mixed_in_numbers_made_by_hand() -> None:
    found = outcome(Plan(2, 2, 4), 0.5)
    # 16 orders of four: 8 stop after two. Of the 8 that start equal: 2 stay dead, 4 end 1:3 or 3:1, 2 end
    # 2:2.
    assert found.samples == pytest.approx(0.5 * 2 + 0.5 * 4)
    assert found.dead == pytest.approx(2 / 16)
    assert found.factor == pytest.approx(0.5 * 0.5 + 4 / 16 * 3 / 12 + 2 / 16 * 4 / 12)


def test_extending_dead_groups_makes_rare_successes_count_more_and_never_less() -> None:
    biases = [outcome(MIXED, p).bias for p in (0.001, 0.01, 0.1, 0.3, 0.5)]
    assert biases == sorted(biases, reverse=True) and min(biases) > 1
    # A lone success arrives in block j with probability 4p and then counts 1/(4j): together p (1 + 1/2 + 1/3
    # + 1/4).
    assert outcome(MIXED, 1e-6).bias == pytest.approx(25 / 12, rel=1e-4)
    assert outcome(MIXED, 0.1).dead == pytest.approx(0.1**16 + 0.9**16)


@pytest.mark.parametrize(
    "plan",
    [CERTAIN, Plan(4, 4, 32, "until_certain", 0.1), Plan(2, 3, 9, "until_certain", 0.12), FIXED, MIXED],
)
def test_the_weights_make_every_plan_unbiased_at_every_pass_rate(plan: Plan) -> None:
    correction = unbiased_weights(plan)
    for p in RATES:
        assert outcome(plan, p, correction).bias == pytest.approx(1, abs=1e-9)


def test_until_mixed_can_only_be_unbiased_by_ignoring_what_it_extended() -> None:
    for (r, w), weight in unbiased_weights(MIXED).items():
        if r and w:
            assert weight == pytest.approx(1.0 if r + w == 4 else 0.0)


def test_until_certain_spends_on_middling_prompts_and_needs_mild_weights() -> None:
    # p = 1/2: 14 of 16 groups of four are mixed and go on to eight; of 256 orders the 68 that are 4:4 and
    # were mixed go on to twelve.
    assert outcome(CERTAIN, 0.5).samples == pytest.approx(4 + 4 * 14 / 16 + 4 * 68 / 256)
    spend = [outcome(CERTAIN, p).samples for p in (0.01, 0.1, 0.3, 0.5)]
    assert spend == sorted(spend) and spend[0] < 4.2
    live = [weight for (r, w), weight in unbiased_weights(CERTAIN).items() if r and w]
    assert min(live) > 0.9 and max(live) < 2.1


@pytest.mark.parametrize("plan", [MIXED, CERTAIN])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_sampled_groups_through_the_loops_functions_have_the_enumerated_factor(plan: Plan, p: float) -> None:
    """Draw groups as the loop does (ask `undecided`, extend, ask again), take leave-one-out advantages, and
    measure the gradient in the logit of the pass rate: mean over the group of A (1[right] - p)."""
    rng, groups = np.random.default_rng(1), 1500
    rewards = rng.random(groups * plan.start) < p
    ids = np.repeat(np.arange(groups), plan.start)
    while True:
        still = np.flatnonzero(
            adv.undecided(
                rewards.astype(float), ids, limit=plan.limit, rule=plan.rule, tolerance=plan.tolerance
            )
        )
        if not len(still):
            break
        rewards = np.concatenate([rewards, rng.random(len(still) * plan.step) < p])
        ids = np.concatenate([ids, np.repeat(still, plan.step)])
    advantages = adv.compute(rewards.astype(float), ids, scale="none", baseline="leave_one_out").advantages_B
    sizes = np.bincount(ids)
    factor_P = np.bincount(ids, advantages * (rewards - p)) / sizes
    exact = outcome(plan, p)
    assert np.mean(factor_P) == pytest.approx(exact.factor, abs=4 * np.std(factor_P) / math.sqrt(groups))
    assert np.mean(sizes) == pytest.approx(exact.samples, abs=4 * np.std(sizes) / math.sqrt(groups))
    correction = unbiased_weights(plan)
    right_P = np.bincount(ids, rewards).astype(int)
    weight_P = np.array([correction[r, n - r] for r, n in zip(right_P, sizes, strict=True)])
    assert np.mean(factor_P * weight_P) == pytest.approx(
        p * (1 - p), abs=4 * np.std(factor_P * weight_P) / math.sqrt(groups)
    )
