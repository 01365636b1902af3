"""From scores to advantages, with numbers worked out by hand."""

import math

import numpy as np
import pytest

from tests.tiny import tiny_policy
from workbench.core.config import RunConfig
from workbench.core.types import Group, Prompt, Rollout, Score
from workbench.train.compute_advantages import compute_advantages, reward_table
from workbench.train.rollout_stage import ScoredGroups
from workbench.train.update import Updater

NONE = Score({"a": None, "b": None}, {"a": "no answer", "b": "no answer"}, None)


def test_an_absent_reward_is_absent_and_not_zero() -> None:
    scores = [Score({"a": 1.0, "b": None}, {}, 1.0), NONE, Score({"a": 0.0, "b": 2.0}, {}, 1.0)]
    found = reward_table(scores, ["b", "a"])
    np.testing.assert_array_equal(found, [[math.nan, 1.0], [math.nan, math.nan], [2.0, 0.0]])
    assert reward_table([], ["a"]).shape == (0, 1)


def test_an_answer_without_a_reward_asks_nothing_and_leaves_its_siblings_as_they_are() -> None:
    """Rewards 1, 3 and none: mean 2, std 1.4142; were the missing one a zero, the mean would be 4/3."""
    rollouts = tuple(
        Rollout(np.array([5, 2], np.int32), np.array([-1.0, -1.0], np.float32), "x", "stop") for _ in range(3)
    )
    config = RunConfig.build(
        None, {"rewards": "correct=1", "beta": 0.0, "advantage_eps": 0.0, "advantage_std": "sample"}
    )
    scores = [
        Score({"correct": 1.0}, {}, 1.0),
        Score({"correct": None}, {}, None),
        Score({"correct": 3.0}, {}, 3.0),
    ]
    found = ScoredGroups([Group(Prompt("q", token_ids=(4,)), rollouts)], scores, 3, 0, {})
    asked = compute_advantages(found, config, ["correct"], Updater(tiny_policy(), config), None)
    assert np.asarray(asked.advantages_B) == pytest.approx([-math.sqrt(0.5), 0.0, math.sqrt(0.5)])
