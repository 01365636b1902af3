"""The order of prompts is a pure function of seed and step."""

from collections import Counter

import pytest

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.core.types import Prompt
from workbench.prompts import TASKS, PromptStream, watched

PROMPTS = [Prompt(str(number)) for number in range(10)]


def test_no_prompt_comes_twice_in_a_step() -> None:
    stream = PromptStream(PROMPTS, 4, seed=3)
    assert all(len({prompt.question for prompt in stream.at(step)}) == 4 for step in range(50))


def test_a_step_is_the_same_whatever_came_before() -> None:
    stream = PromptStream(PROMPTS, 4, seed=3)
    in_order = [stream.at(step) for step in range(20)]
    assert [PromptStream(PROMPTS, 4, seed=3).at(step) for step in reversed(range(20))] == in_order[::-1]


def test_an_epoch_holds_every_prompt_once_when_the_step_size_divides() -> None:
    stream = PromptStream(PROMPTS, 5, seed=0)
    for epoch in range(3):
        drawn = stream.at(2 * epoch) + stream.at(2 * epoch + 1)
        assert sorted(int(prompt.question) for prompt in drawn) == list(range(10))


def test_prompts_left_over_in_one_epoch_come_in_others() -> None:
    stream = PromptStream(PROMPTS, 4, seed=0)
    visits = Counter(prompt.question for step in range(100) for prompt in stream.at(step))
    assert len(visits) == 10
    assert min(visits.values()) > 25


def test_another_seed_and_another_epoch_have_another_order() -> None:
    one, other = PromptStream(PROMPTS, 5, seed=0), PromptStream(PROMPTS, 5, seed=1)
    assert one.at(0) != other.at(0)
    assert one.at(0) != one.at(2)


def test_replacement_prompts_are_all_the_others_in_a_fixed_order() -> None:
    stream = PromptStream(PROMPTS, 4, seed=0)
    replacements = stream.replacement_prompts(7)
    assert {prompt.question for prompt in replacements} == {p.question for p in PROMPTS} - {
        p.question for p in stream.at(7)
    }
    assert replacements == PromptStream(PROMPTS, 4, seed=0).replacement_prompts(7)
    assert len(replacements) == 6


def test_a_step_larger_than_the_data_is_refused_beside_its_field() -> None:
    with pytest.raises(ConfigError, match="only 10 prompts") as caught:
        PromptStream(PROMPTS, 11, seed=0)
    assert set(caught.value.problems) == {"prompts_per_step"}


def test_watched_prompts_cover_all_levels() -> None:
    chosen = watched(TASKS["chain"].heldout(RunConfig()), 16)
    assert len({prompt.question for prompt in chosen}) == 16
    assert {prompt.columns["level"] for prompt in chosen} == set(range(3, 10))


def test_there_are_no_more_watched_prompts_than_held_out_ones() -> None:
    assert watched(PROMPTS[:3], 16) == PROMPTS[:3]
    assert watched([], 16) == []
