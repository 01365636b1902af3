"""Advantages by hand, against plain Python, and their invariances."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.algorithm import advantages as adv

NAN = float("nan")
PAPER = {"std": "population", "eps": 0.0}


def ids(*sizes: int) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def compute(rewards: list[float], *sizes: int, **settings) -> adv.Advantages:
    return adv.compute(np.array(rewards, float), ids(*(sizes or (len(rewards),))), **settings)


def test_ragged_groups_are_compared_within_themselves() -> None:
    found = compute([1, 0, 1, 0, 0, 0], 2, 4, **PAPER)
    np.testing.assert_allclose(found.advantages_B, [1, -1, math.sqrt(3), *[-1 / math.sqrt(3)] * 3])
    np.testing.assert_allclose(found.mean_P, [0.5, 0.25])
    assert found.count_P.tolist() == [2, 4]


def test_groups_need_not_be_contiguous_and_ids_need_not_start_at_zero() -> None:
    found = adv.compute(np.array([1.0, 5, 0, 3]), np.array([7, 3, 7, 3]), **PAPER)
    np.testing.assert_allclose(found.advantages_B, [1, 1, -1, -1])
    np.testing.assert_allclose(found.mean_P, [4, 0.5])  # in the order of ascending id


def test_a_group_with_equal_rewards_gets_exact_zeros_under_every_scale() -> None:
    for scale in ("group", "batch", "none"):
        found = compute([0.1, 0.1, 0.1, 1, 0, 0], 3, 3, scale=scale, eps=0.0)
        assert found.advantages_B[:3].tolist() == [0, 0, 0]
        assert found.std_P[0] == 0 and np.any(found.advantages_B[3:])


def test_rounding_noise_is_a_tie_and_not_a_difference() -> None:
    found = compute([0.1 + 0.2, 0.3, 0.3, 0.3], **PAPER)
    assert found.advantages_B.tolist() == [0, 0, 0, 0] and found.zero_std_P.all()


def test_a_real_difference_however_small_is_no_tie() -> None:
    np.testing.assert_allclose(compute([1e-12, 0, 0, 1e-12], **PAPER).advantages_B, [1, -1, -1, 1])


def test_dead_groups_are_told_apart_by_side() -> None:
    found = compute([1, 1, 0, 0, 0.5, 0.5, NAN, NAN, 1, 0], 2, 2, 2, 2, 2)
    assert found.zero_std_P.tolist() == [True] * 4 + [False]
    assert found.all_right_P.tolist() == [True, False, False, False, False]
    assert found.all_wrong_P.tolist() == [False, True, False, False, False]
    assert found.tied_P.tolist() == [False, False, True, False, False]
    assert found.absent_P.tolist() == [False, False, False, True, False]
    signed = compute([-1, -1, 0, 0], 2, 2, reward_range=(-1, 1))
    assert signed.all_wrong_P.tolist() == [True, False] and signed.tied_P.tolist() == [False, True]


def test_an_absent_reward_leaves_its_group_as_if_it_were_not_there() -> None:
    with_gap = compute([1, NAN, 0, 0], **PAPER)
    without = compute([1, 0, 0], **PAPER)
    np.testing.assert_allclose(with_gap.advantages_B[[0, 2, 3]], without.advantages_B)
    assert with_gap.advantages_B[1] == 0 and with_gap.count_P.tolist() == [3]
    np.testing.assert_array_equal(compute([1, math.inf, 0, -math.inf], **PAPER).advantages_B[[1, 3]], [0, 0])


def test_a_single_scored_sample_has_nothing_to_be_compared_with() -> None:
    for baseline in ("mean", "leave_one_out"):
        assert compute([0.7, NAN, NAN], baseline=baseline, eps=0.0).advantages_B.tolist() == [0, 0, 0]


def test_excluded_samples_are_not_pushed_but_still_count_in_the_mean() -> None:
    found = compute([1, 0, 0, 0], excluded_B=np.array([False, True, False, False]), **PAPER)
    np.testing.assert_allclose(found.advantages_B, [math.sqrt(3), 0, -1 / math.sqrt(3), -1 / math.sqrt(3)])


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    found = compute([1, 0.5, 0], scale="none", baseline="leave_one_out")
    np.testing.assert_allclose(found.advantages_B, [1 - 0.25, 0.5 - 0.5, 0 - 0.75])


def test_batch_scale_divides_by_one_std_of_all_scored_rewards() -> None:
    found = compute([1, 0, NAN, 5, 9, 7], 3, 3, scale="batch", eps=0.0)
    divisor = statistics.stdev([1, 0, 5, 9, 7])
    np.testing.assert_allclose(found.advantages_B, np.array([0.5, -0.5, 0, -2, 2, 0]) / divisor)
    np.testing.assert_allclose(found.divisor_P, [divisor, divisor])


def test_noise_in_a_tiny_reward_becomes_a_full_push_unless_eps_or_none_stops_it() -> None:
    rewards = [1.001, 1.0, 1.0, 1.001]
    np.testing.assert_allclose(compute(rewards, **PAPER).advantages_B, [1, -1, -1, 1], rtol=1e-9)
    np.testing.assert_allclose(compute(rewards, scale="none").advantages_B, [5e-4, -5e-4, -5e-4, 5e-4])


def test_weighted_sum_skips_absent_rewards_and_keeps_a_sample_without_any_absent() -> None:
    total = adv.combine(np.array([[1, NAN, 2], [NAN, NAN, NAN], [0, 1, NAN]]), np.array([1.0, 10.0, 0.5]))
    np.testing.assert_array_equal(total, [2, NAN, 10])


def test_normalising_first_keeps_two_rewards_apart_that_cancel_in_the_sum() -> None:
    table = np.array([[1.0, 0], [0, 1], [0, 0], [0, 0], [1, 1], [1, 1]])
    groups = ids(2, 2, 2)
    summed = adv.from_rewards(table, np.ones(2), groups)
    first = adv.from_rewards(table, np.array([1.0, 2.0]), groups, aggregation="normalize_then_sum")
    assert summed.zero_std_P.tolist() == [True, True, True]
    assert first.zero_std_P.tolist() == [False, True, True]
    assert (
        first.advantages_B[2:].tolist() == [0, 0, 0, 0]
        and first.advantages_B[0] == -first.advantages_B[1] < 0
    )
    assert first.all_wrong_P.tolist() == [False, True, False]


def test_normalising_first_with_absent_rewards_equals_the_formula_written_out() -> None:
    table = np.array([[1, NAN], [0, 0.5], [NAN, NAN], [0, 2.5]])
    found = adv.from_rewards(table, np.array([1.0, 3.0]), ids(4), aggregation="normalize_then_sum")
    right, other = math.sqrt(1 / 3) + 1e-4, math.sqrt(2) + 1e-4  # sample stds of (1, 0, 0) and (.5, 2.5)
    sums = [2 / 3 / right, -1 / 3 / right - 3 / other, -1 / 3 / right + 3 / other]
    divisor = statistics.stdev(sums) + 1e-4
    np.testing.assert_allclose(
        found.advantages_B, [sums[0] / divisor, sums[1] / divisor, 0, sums[2] / divisor]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tensors_give_what_arrays_give(dtype: torch.dtype) -> None:
    table = np.array([[1, 0.25], [0, NAN], [NAN, NAN], [0, 1], [1, 1], [1, 1]])
    for aggregation in ("sum_then_normalize", "normalize_then_sum"):
        settings = {"aggregation": aggregation, "scale": "batch", "baseline": "leave_one_out"}
        expected = adv.from_rewards(table, np.array([1.0, 0.5]), ids(4, 2), **settings)
        found = adv.from_rewards(
            torch.tensor(table, dtype=dtype),
            torch.tensor([1.0, 0.5], dtype=dtype),
            torch.tensor(ids(4, 2)),
            **settings,
        )
        assert found.advantages_B.dtype == dtype
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


def test_every_prompt_counts_once_under_prompt_weights() -> None:
    found = adv.prompt_weights(ids(2, 6), np.zeros(8))
    np.testing.assert_allclose(found, [2, 2, *[2 / 3] * 6])
    assert found.sum() == pytest.approx(8)
    np.testing.assert_array_equal(adv.prompt_weights(ids(3, 3), np.zeros(6)), np.ones(6))


# -- properties ------------------------------------------------------------------------------------

REWARD = st.one_of(st.sampled_from([0.0, 1.0, 0.5, -1.0]), st.floats(-10, 10).map(lambda r: round(r, 6)))
GROUPS = st.lists(st.lists(REWARD, min_size=1, max_size=6), min_size=1, max_size=4)
MODES = st.fixed_dictionaries(
    {
        "scale": st.sampled_from(["group", "batch", "none"]),
        "std": st.sampled_from(["sample", "population"]),
        "baseline": st.sampled_from(["mean", "leave_one_out"]),
        "eps": st.sampled_from([0.0, 1e-4]),
    }
)


def flat(groups: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r for group in groups for r in group]), ids(*map(len, groups))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(GROUPS, MODES)
def test_advantages_are_finite_and_sum_to_zero_in_every_group(groups, modes) -> None:
    rewards, group_ids = flat(groups)
    found = adv.compute(rewards, group_ids, **modes)
    assert np.isfinite(found.advantages_B).all()
    sums = np.bincount(group_ids, found.advantages_B)
    assert np.all(np.abs(sums) <= 1e-9 * (1 + np.abs(found.advantages_B).max()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(GROUPS, st.sampled_from(["sample", "population"]), st.sampled_from([0.0, 1e-4]))
def test_group_scaling_equals_the_formula_in_plain_python(groups, std, eps) -> None:
    rewards, group_ids = flat(groups)
    expected = []
    for group in groups:
        spread = (
            0.0
            if len(set(group)) < 2
            else (statistics.stdev if std == "sample" else statistics.pstdev)(group)
        )
        expected += [(r - statistics.fmean(group)) / (spread + eps) if spread else 0.0 for r in group]
    np.testing.assert_allclose(
        adv.compute(rewards, group_ids, std=std, eps=eps).advantages_B, expected, rtol=1e-6, atol=1e-7
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(GROUPS, MODES, st.integers(-1000, 1000))
def test_adding_a_constant_to_all_rewards_changes_nothing(groups, modes, shift) -> None:
    rewards, group_ids = flat(groups)
    np.testing.assert_allclose(
        adv.compute(rewards + shift, group_ids, **modes).advantages_B,
        adv.compute(rewards, group_ids, **modes).advantages_B,
        atol=1e-6,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    GROUPS,
    st.floats(1e-3, 1e3),
    st.sampled_from(["group", "batch"]),
    st.sampled_from(["sample", "population"]),
)
def test_a_scale_changes_nothing_without_eps_and_shrinks_by_the_stated_factor_with_it(
    groups, factor, scale, std
) -> None:
    rewards, group_ids = flat(groups)
    free = {"scale": scale, "std": std, "eps": 0.0}
    plain = adv.compute(rewards, group_ids, **free)
    np.testing.assert_allclose(
        adv.compute(rewards * factor, group_ids, **free).advantages_B, plain.advantages_B, atol=1e-8
    )
    guarded = {**free, "eps": 1e-4}
    small = adv.compute(rewards * factor, group_ids, **guarded).advantages_B
    spread = plain.divisor_P[group_ids]  # the std, as eps is 0
    np.testing.assert_allclose(
        small, plain.advantages_B * spread / np.maximum(spread + 1e-4 / factor, 1e-300), atol=1e-8
    )


def test_rewards_of_a_thousandth_lose_fifteen_percent_to_trls_eps() -> None:
    ratio = compute([1e-3, 0, 0, 1e-3]).advantages_B[0] / compute([1.0, 0, 0, 1], eps=0.0).advantages_B[0]
    assert ratio == pytest.approx(0.8524, abs=1e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(GROUPS, MODES, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(groups, modes, random) -> None:
    rewards, group_ids = flat(groups)
    order = list(range(len(rewards)))
    random.shuffle(order)
    np.testing.assert_allclose(
        adv.compute(rewards[order], group_ids[order], **modes).advantages_B,
        adv.compute(rewards, group_ids, **modes).advantages_B[order],
        atol=1e-7,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.data())
def test_binary_rewards_have_the_textbook_advantages(size, data) -> None:
    right = data.draw(st.integers(1, size - 1))
    rewards = [1.0] * right + [0.0] * (size - right)
    papers, trl = compute(rewards, **PAPER).advantages_B, compute(rewards, eps=0.0).advantages_B
    assert papers[0] == pytest.approx(math.sqrt((size - right) / right))
    assert papers[-1] == pytest.approx(-math.sqrt(right / (size - right)))
    np.testing.assert_allclose(trl, papers * math.sqrt((size - 1) / size))
    np.testing.assert_allclose(compute([2 * r - 1 for r in rewards], **PAPER).advantages_B, papers)
