"""What every loss must keep: masks, micro-batches, ranks; the shares it is read by; the corrections in
numbers made by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.algorithm.batches import LEVELS, LOSSES, objectives, random_batch
from workbench.algorithm import losses, token_grads, update_stats
from workbench.algorithm.token_grads import Objective
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError

SEEDS = st.integers(0, 10_000)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSSES)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=SEEDS, garbage=st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]))
def test_nothing_under_the_mask_changes_anything(
    loss_type: str, level: str, seed: int, garbage: float
) -> None:
    batch = random_batch(seed)
    spoilt = batch._replace(
        **{
            name: np.where(batch.mask > 0, getattr(batch, name), garbage)
            for name in ("logp", "old", "ref", "sampler")
        }
    )
    for objective in list(objectives(loss_type, level))[seed % 4 :: 4]:
        for got, want in zip(
            token_grads.loss_grads(*spoilt.terms(objective)),
            token_grads.loss_grads(*batch.terms(objective)),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)
        torn = spoilt.torch()._replace(logp=spoilt.torch().logp.requires_grad_())
        value = losses.loss(*torn.terms(objective)).total
        assert value.item() == losses.loss(*batch.torch().terms(objective)).total.item()
        value.backward()
        assert torn.logp.grad is not None and torch.isfinite(torn.logp.grad).all()


@pytest.mark.parametrize("loss_type", LOSSES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=SEEDS, cuts=st.lists(st.integers(1, 6), min_size=0, max_size=4, unique=True))
def test_micro_batches_add_up_to_the_whole(loss_type: str, seed: int, cuts: list[int]) -> None:
    batch = random_batch(seed)
    parts = np.split(np.arange(7), sorted(cuts))
    micro = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    whole = batch.normalizer(micro_batch_ids_B=micro)
    for objective in list(objectives(loss_type, "token"))[seed % 4 :: 4]:
        expected = token_grads.loss_grads(*batch.terms(objective, whole)).grad_B_T
        total = losses.loss(*batch.torch().terms(objective, torch_rows(whole))).total
        pieces = [batch.rows(part).terms(objective, whole.rows(part)) for part in parts]
        np.testing.assert_allclose(
            np.concatenate([token_grads.loss_grads(*terms).grad_B_T for terms in pieces]),
            expected,
            atol=1e-15,
        )
        values = [
            losses.loss(*batch.rows(part).torch().terms(objective, torch_rows(whole.rows(part)))).total
            for part in parts
        ]
        assert float(sum(values)) == pytest.approx(float(total), abs=1e-12)


def torch_rows(n: token_grads.Normalizer) -> token_grads.Normalizer:
    return token_grads.Normalizer(*n.totals, *(torch.as_tensor(part) for part in n[4:]))


def test_only_bnpo_depends_on_the_micro_batches() -> None:
    batch = random_batch(3)
    split = batch.normalizer(micro_batch_ids_B=np.array([0, 0, 0, 0, 1, 1, 1]))
    for loss_type in LOSSES:
        objective = Objective(loss_type=loss_type)
        same = np.allclose(
            token_grads.loss_grads(*batch.terms(objective, split)).grad_B_T,
            token_grads.loss_grads(*batch.terms(objective)).grad_B_T,
            atol=1e-12,
        )
        assert same == (loss_type != "bnpo")


@pytest.mark.parametrize("loss_type", LOSSES)
def test_ranks_that_add_up_their_totals_compute_one_objective(loss_type: str) -> None:
    batch = random_batch(11)
    batch = batch._replace(group_ids_B=np.array([0, 0, 1, 1, 1, 2, 2]))
    ranks = [np.arange(5), np.arange(5, 7)]  # whole groups
    micro = np.array([0, 0, 0, 0, 0, 1, 1])
    objective = Objective(loss_type=loss_type, beta=0.1, max_completion_length=9)
    expected = token_grads.loss_grads(
        *batch.terms(objective, batch.normalizer(micro_batch_ids_B=micro))
    ).grad_B_T
    own = [batch.rows(rank).normalizer() for rank in ranks]
    totals = np.sum([n.totals for n in own], axis=0)
    found = [
        token_grads.loss_grads(*batch.rows(rank).terms(objective, n.with_totals(*totals))).grad_B_T
        for rank, n in zip(ranks, own, strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-15)


def test_prompt_weights_make_a_large_group_count_as_much_as_a_small_one() -> None:
    batch = random_batch(0, samples=6, tokens=1)
    batch = batch._replace(
        mask=np.ones((6, 1)),
        old=batch.logp,
        advantages_B=np.ones(6),
        group_ids_B=np.array([0, 0, 1, 1, 1, 1]),
    )
    for loss_type in ("grpo", "dapo", "dr_grpo"):
        n = batch.normalizer(sample_weights_B=np.array([1.5, 1.5, 0.75, 0.75, 0.75, 0.75]))
        found = token_grads.loss_grads(
            *batch.terms(Objective(loss_type=loss_type, max_completion_length=1), n)
        ).grad_B_T[:, 0]
        np.testing.assert_allclose([found[:2].sum(), found[2:].sum()], [-0.5, -0.5])


# -- normalisers and corrections by hand -----------------------------------------------------------

HAND = random_batch(0, samples=3, tokens=3)._replace(
    logp=np.full((3, 3), -1.0),
    old=np.full((3, 3), -1.0),
    mask=np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0.0]]),
    advantages_B=np.array([1.0, -2.0, 0.5]),
    group_ids_B=np.array([0, 0, 1]),
)


@pytest.mark.parametrize(
    "loss_type, first_token",
    [
        ("grpo", [-1 / 9, 2 / 3, -0.5 / 6]),
        ("dapo", [-1 / 6, 2 / 6, -0.5 / 6]),
        ("bnpo", [-1 / 6, 2 / 6, -0.5 / 6]),
        ("dapo_group", [-1 / 8, 2 / 8, -0.5 / 4]),
        ("dr_grpo", [-1 / 30, 2 / 30, -0.5 / 30]),
        ("luspo", [-1 / 3, 2 / 3, -0.5 / 3]),
        ("sapo", [-1 / 9, 2 / 3, -0.5 / 6]),
        ("cispo", [-0.9 / 6, 1.8 / 6, -0.45 / 6]),
    ],
)
def test_normalisers_in_numbers(loss_type: str, first_token: list[float]) -> None:
    objective = Objective(loss_type=loss_type, max_completion_length=10, epsilon_high=0.9)
    found = token_grads.loss_grads(*HAND.terms(objective))
    np.testing.assert_allclose(found.grad_B_T[:, 0], first_token, atol=1e-15)
    np.testing.assert_array_equal(found.grad_B_T[HAND.mask == 0], 0)


def one_token(ratio: float, advantage: float, **more) -> token_grads.TokenGrads:
    one = np.ones((1, 1))
    n = token_grads.normalizer(np.ones(1), np.zeros(1, int))
    return token_grads.loss_grads(
        -one,
        -one - math.log(ratio),
        None,
        None,
        np.array([advantage]),
        one,
        Objective(loss_type="grpo", **more),
        n,
    )


@pytest.mark.parametrize(
    "ratio, advantage, more, weight",
    [
        (1.19, 1, {}, -1.19),
        (1.21, 1, {}, 0),
        (1.21, -1, {}, 1.21),
        (0.79, -1, {}, 0),
        (0.79, 1, {}, -0.79),
        (5, -1, {}, 5),
        (1.25, 1, {"epsilon_high": 0.28}, -1.25),
        (1.29, 1, {"epsilon_high": 0.28}, 0),
        (5, -1, {"delta": 4}, 0),
        (3.9, -1, {"delta": 4}, 3.9),
        (1.1, 1, {"delta": 1.05}, 0),
        (1.1, -1, {"delta": 1.05}, 1.1),
        (5, -1, {"dual_clip": 3}, 0),
        (2.9, -1, {"dual_clip": 3}, 2.9),
        (1.1, 1, {"dual_clip": 1.05}, -1.1),
        (0.5, -1, {"dual_clip": 3}, 0),
        (9.9, 1, {"epsilon_high": 10}, -9.9),
        (1.5, 0, {}, 0),
    ],
)
def test_clipping_switches_the_push_off_on_the_right_side(
    ratio: float, advantage: float, more: dict, weight: float
) -> None:
    assert one_token(ratio, advantage, **more).grad_B_T[0, 0] == pytest.approx(weight, abs=1e-12)


def test_clipped_tokens_are_named_by_side() -> None:
    assert one_token(1.3, 1).clipped_high_B_T.all() and not one_token(1.3, 1).clipped_low_B_T.any()
    assert one_token(0.7, -1).clipped_low_B_T.all() and not one_token(0.7, -1).clipped_high_B_T.any()
    assert not any(part.any() for a in (1, -1) for part in one_token(1.1, a)[2:4])
    assert not one_token(1.3, -1).clipped_high_B_T.any()


def test_an_absurd_log_ratio_gives_no_infinity_and_no_nan() -> None:
    one = np.ones((1, 1))
    n = token_grads.normalizer(np.ones(1), np.zeros(1, int))
    for advantage in (0.0, 1.0, -1.0):
        for gap in (2000.0, -2000.0):
            for loss_type in LOSSES:
                objective = Objective(
                    loss_type=loss_type,
                    beta=0.1,
                    kl_estimator="k3_ratio",
                    importance_sampling_correction="token_truncate",
                )
                found = token_grads.loss_grads(
                    -one, -one - gap, -one + gap, -one + gap, np.array([advantage]), one, objective, n
                )
                assert np.isfinite(found.grad_B_T).all() and np.isfinite(found.ratio_B_T).all()


CORRECTED = {
    "old": np.log([[0.4, 0.2]]),
    "sampler": np.log([[0.1, 0.4]]),
}  # token weights 4 and 1/2, product 2


@pytest.mark.parametrize(
    "mode, low, high, expected",
    [
        ("token_truncate", None, 3.0, [3, 0.5]),
        ("token_truncate", 0.8, 3.0, [3, 0.8]),
        ("token_mask", None, 3.0, [0, 0.5]),
        ("token_mask", 0.8, None, [4, 0]),
        ("sequence_truncate", None, 1.5, [1.5, 1.5]),
        ("sequence_mask", None, 3.0, [2, 2]),
        ("sequence_mask", None, 1.5, [0, 0]),
        ("sequence_mask", 2.5, 3.0, [0, 0]),
        ("off", None, 3.0, [1, 1]),
    ],
)
def test_mismatch_corrections_in_numbers(
    mode: str, low: float | None, high: float | None, expected: list[float]
) -> None:
    objective = Objective(
        importance_sampling_correction=mode,
        importance_sampling_clip_min=low,
        importance_sampling_clip_max=high,
    )
    found = token_grads.importance_correction(
        CORRECTED["old"], CORRECTED["sampler"], np.ones((1, 2)), objective
    )
    np.testing.assert_allclose(found, [expected])


def test_a_token_the_sampler_could_not_score_counts_with_weight_one() -> None:
    objective = Objective(importance_sampling_correction="sequence_truncate")
    sampler = np.array([[np.nan, math.log(0.4)]])
    np.testing.assert_allclose(
        token_grads.importance_correction(CORRECTED["old"], sampler, np.ones((1, 2)), objective), [[0.5, 0.5]]
    )


def test_corrections_and_the_off_policy_mask_leave_the_kl_term_alone() -> None:
    batch = random_batch(5)
    kl_only = batch._replace(advantages_B=np.zeros(7))
    for more in (
        {"importance_sampling_correction": "token_mask", "importance_sampling_clip_max": 1e-6},
        {"off_policy_mask_threshold": -9.0},
    ):
        with_kl = Objective(beta=0.1, **more)
        negative = batch._replace(advantages_B=-np.ones(7))
        np.testing.assert_allclose(
            token_grads.loss_grads(*negative.terms(with_kl)).grad_B_T,
            token_grads.loss_grads(*kl_only.terms(Objective(beta=0.1))).grad_B_T,
        )


# -- KL --------------------------------------------------------------------------------------------


def test_k3_pulls_towards_the_reference_in_the_right_direction() -> None:
    """One token the policy likes more than the reference (.6 against .2): the penalty must make it less
    likely."""
    one = np.ones((1, 1))
    n = token_grads.normalizer(np.ones(1), np.zeros(1, int))
    for estimator, weight in (
        ("k1", 1.0),
        ("k2", math.log(3)),
        ("k3", 1 - 1 / 3),
        ("k3_ratio", math.log(3)),
        ("k1_ratio", 1 + math.log(3)),
    ):
        found = token_grads.loss_grads(
            math.log(0.6) * one,
            None,
            math.log(0.2) * one,
            None,
            np.zeros(1),
            one,
            Objective(beta=1.0, kl_estimator=estimator),
            n,
        )
        assert found.grad_B_T[0, 0] == pytest.approx(weight)


def test_kl_in_rewards_subtracts_the_sum_over_the_answer() -> None:
    logp, ref = np.log([[0.5, 0.5, 0.9]]), np.log([[0.25, 0.125, 0.1]])
    mask = np.array([[1, 1, 0]])
    assert token_grads.kl_in_rewards(np.ones(1), logp, ref, mask, 0.1) == pytest.approx(
        [1 - 0.1 * math.log(8)]
    )
    assert token_grads.kl_in_rewards(np.ones(1), logp, ref, mask, 0.1, "k3") == pytest.approx(
        [1 - 0.1 * (math.log(8) + 0.5 + 0.25 - 2)]
    )
    assert np.isnan(token_grads.kl_in_rewards(np.array([np.nan]), logp, ref, mask, 0.1)).all()


def test_a_penalty_in_the_reward_is_not_in_the_loss() -> None:
    batch = random_batch(1)
    inside = token_grads.loss_grads(*batch.terms(Objective(beta=0.1, kl_in="reward"))).grad_B_T
    np.testing.assert_array_equal(inside, token_grads.loss_grads(*batch.terms(Objective())).grad_B_T)


def test_a_penalty_without_reference_is_an_error_and_not_zero() -> None:
    batch = random_batch(1)
    for function, terms in ((token_grads.loss_grads, batch), (losses.loss, batch.torch())):
        with pytest.raises(ValueError, match="ref_logp"):
            function(*terms._replace(ref=None).terms(Objective(beta=0.1)))


# -- shares ----------------------------------------------------------------------------------------


def test_gradient_share_is_the_length_of_the_push_on_the_logits() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(5), size=(3, 2))
    tokens = rng.integers(0, 5, (3, 2))
    push, mask = rng.normal(size=(3, 2)), np.array([[1, 1], [1, 0], [1, 1.0]])
    one_hot = np.eye(5)[tokens]
    lengths = (np.abs(push) * np.linalg.norm(one_hot - probs, axis=-1) * mask).sum(1)
    logp = np.log(np.take_along_axis(probs, tokens[..., None], -1)[..., 0])
    found = update_stats.gradient_share(
        np.where(mask > 0, push, np.nan), np.where(mask > 0, logp, np.nan), mask, (probs**2).sum(-1)
    )
    np.testing.assert_allclose(found, lengths / lengths.sum())


def test_shares_of_a_step_without_signal_are_zero() -> None:
    assert update_stats.gradient_share(np.zeros((2, 2)), -np.ones((2, 2)), np.ones((2, 2))).tolist() == [0, 0]


def test_the_push_of_a_sure_token_is_short_and_exact_for_two_outcomes() -> None:
    p = np.array([0.99, 0.5])
    np.testing.assert_allclose(update_stats.push_length(p), update_stats.push_length(p, p**2 + (1 - p) ** 2))
    np.testing.assert_allclose(update_stats.push_length(p), math.sqrt(2) * (1 - p))


def test_sequence_level_clip_fractions_count_answers_that_have_tokens() -> None:
    mask = np.array([[1, 1], [1, 0], [0, 0]])
    low = np.array([[True, True], [False, False], [True, True]])
    assert update_stats.clip_fractions(low, ~low & False, mask, "sequence") == (0.5, 0.0, 0.5, 2)
    assert update_stats.clip_fractions(low, ~low & False, mask) == (
        pytest.approx(2 / 3),
        0.0,
        pytest.approx(2 / 3),
        3,
    )


def test_effective_sample_size_is_the_share_that_equal_weights_would_need() -> None:
    assert update_stats.ess_fraction(np.array([3.0, 1.0])) == pytest.approx(0.8)
    assert update_stats.ess_fraction(np.zeros(3)) == 0.0


# -- settings --------------------------------------------------------------------------------------


def test_an_objective_is_read_off_a_run_configuration() -> None:
    config = RunConfig.build(
        "embedded", {"loss_type": "cispo", "epsilon_high": 5, "beta": 0.02, "max_completion_length": 77}
    )
    objective = Objective.of(config)
    assert (
        objective.loss_type,
        objective.clip_high,
        objective.kl_weight,
        objective.max_completion_length,
    ) == ("cispo", 5, 0.02, 77)


def test_defaults_are_those_of_the_settings() -> None:
    assert Objective.of(RunConfig()) == Objective()


def test_an_unknown_loss_or_estimator_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="dapo_group"):
        Objective(loss_type="vespo")
    with pytest.raises(ConfigError, match="k3_ratio"):
        Objective(kl_estimator="k4")


def test_the_entropy_bonus_is_a_mean_over_all_loss_tokens_whatever_the_loss_type() -> None:
    batch = random_batch(2).torch()
    entropy = torch.rand(batch.mask.shape, dtype=torch.float64, requires_grad=True)
    for loss_type in ("grpo", "dr_grpo", "dapo"):
        terms = losses.loss(
            *batch.terms(Objective(loss_type=loss_type, entropy_coef=0.5)), entropy_B_T=entropy
        )
        mean = (entropy * batch.mask).sum() / batch.mask.sum()
        assert terms.entropy.item() == pytest.approx(mean.item())
        assert (terms.total - terms.policy).item() == pytest.approx(-0.5 * mean.item())
    with pytest.raises(ValueError, match="entropy"):
        losses.loss(*batch.terms(Objective(entropy_coef=0.5)))
