"""What another reward would do, against figures worked out by hand."""

import math

import numpy as np
import pytest

from workbench.diagnose.forecast import changed_winners, forecast, ranks, wrongly_pushed

OLD = np.array([1.0, 0, 0, 0, 0, 0, 0, 0])
NEW = np.array([1.0, 1, 0, 0, 0, 0, 0, 1])
IDS = np.repeat([0, 1], 4)


def test_groups_of_the_size_that_is_requested_are_taken_as_they_are():
    found = forecast(OLD, NEW, IDS, 4, eps=0.0)
    assert found.exact and not found.stretched and found.old is not None
    assert (found.old.dead, found.new.dead) == (0.5, 0.0)
    # One right of four: mean .25, sample variance .25. Two right: variance 1/3.
    assert found.old.std_P == pytest.approx([0.5, 0.0])
    assert found.new.std_P == pytest.approx([math.sqrt(1 / 3), 0.5])
    # |A| of one right of four: 1.5 once and .5 three times; the dead group counts as nothing.
    assert found.old.signal == pytest.approx((1.5 + 3 * 0.5) / 8)
    assert found.new.signal == pytest.approx((4 * 0.5 / math.sqrt(1 / 3) + 1.5 + 3 * 0.5) / 8)
    assert found.winners == 0.0  # the one that was best is among the best, and a dead group had no other one


def test_smaller_groups_are_drawn_without_replacement():
    many = 300
    rewards = np.tile([1.0, 0, 0, 0], many)
    found = forecast(None, rewards, np.repeat(np.arange(many), 4), 2)
    # Both of two from four with one right are wrong: C(3,2) / C(4,2).
    assert found.new.dead == pytest.approx(0.5, abs=0.02)
    assert not found.exact and not found.stretched and found.old is None and found.winners is None


def test_larger_groups_are_drawn_with_replacement_and_say_so():
    many = 300
    rewards = np.tile([1.0, 0, 0, 0], many)
    found = forecast(None, rewards, np.repeat(np.arange(many), 4), 8)
    assert found.stretched
    assert found.new.dead == pytest.approx(0.75**8 + 0.25**8, abs=0.02)


def test_both_rewards_meet_the_same_draws_and_the_draws_are_the_same_again():
    rewards = np.tile([1.0, 0.5, 0.2, 0.0], 20)
    ids = np.repeat(np.arange(20), 4)
    first, second = forecast(rewards, rewards, ids, 3), forecast(rewards, rewards, ids, 3)
    assert first.old is not None and first.old.signal == first.new.signal and first.winners == 0.0
    assert first.new.signal == second.new.signal


def test_a_winner_changes_where_no_best_completion_stays_best():
    old = np.array([[1.0, 0, 0], [1, 1, 0], [1, 0, 0], [np.nan] * 3, [0, 0, 0]])
    new = np.array([[0.0, 1, 0], [0, 1, 0], [np.nan, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert changed_winners(old, new).tolist() == [True, False, True, False, False]


def test_a_completion_without_a_reward_is_left_out_and_has_no_place():
    found = forecast(None, np.array([1.0, np.nan, 0.0]), np.zeros(3, dtype=np.int64), 3, eps=0.0)
    assert found.new.std_P == pytest.approx([math.sqrt(0.5)])
    assert ranks([0.5, None, 1.0, 0.5]) == [2, None, 1, 2]


def test_wrong_completions_with_positive_and_right_ones_with_negative_advantage_are_counted():
    right = np.array([1.0, 0, 0, 1, np.nan])
    assert wrongly_pushed(np.array([0.5, 0.2, -0.1, -0.3, 0.9]), right) == (1, 1)
