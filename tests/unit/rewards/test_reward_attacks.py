"""Tricks against rewards: which rewards fall for which."""

from pathlib import Path

import pytest

from tests.rewarding import written
from workbench.core.config import RewardSpec
from workbench.rewards.api.reward_input import of_rows
from workbench.rewards.attacks import TRICKS, Given, attack
from workbench.rewards.runtime.registry import resolve

ROWS = [
    {"prompt": f"Chain: {start}+3", "answer": str((start + 3) % 10), "completion": text, "group": start}
    for start in range(8)
    for text in (
        f"<think>{start}+3={start + 3}</think><answer>{(start + 4) % 10}</answer>",
        f"<think>{start}+3={start + 3}</think><answer>{(start + 3) % 10}</answer>",
    )
]


def verdicts(folder: Path, *names: str) -> dict[str, str]:
    sources = resolve([RewardSpec(name=name) for name in names], folder / "rewards")
    return {found.name: found.verdict for found in attack(sources, of_rows(ROWS))}


def test_the_exact_verifier_falls_for_none_of_the_tricks(tmp_path):
    found = verdicts(tmp_path, "correct")
    assert list(found) == list(TRICKS)
    assert set(found.values()) == {"safe"}


def test_a_form_without_content_is_all_that_a_format_reward_wants(tmp_path):
    found = verdicts(tmp_path, "format")
    assert found["format only"] == found["constant guess"] == found["answer spam"] == "hackable"
    assert found["empty"] == found["prompt echo"] == found["tag spam"] == "safe"


def test_looking_for_the_answer_anywhere_falls_for_spam_and_raising_shows_as_breaking(tmp_path):
    path = written(
        tmp_path,
        """
        def anywhere(completion, answer):
            return float(answer in completion)

        def fragile(completion, answer):
            return float(int(completion.split("<answer>")[1][0]) == int(answer))

        def grower(completion, length):
            return min(length, 100) / 100
        """,
    )
    anywhere = verdicts(tmp_path, f"{path}:anywhere")
    assert anywhere["answer spam"] == anywhere["tag spam"] == "hackable"
    assert anywhere["empty"] == "safe"
    assert verdicts(tmp_path, f"{path}:fragile")["empty"] == "breaks"
    assert verdicts(tmp_path, f"{path}:grower")["10x length"] == "hackable"


def test_rewards_that_compare_siblings_see_each_trick_among_honest_answers(tmp_path):
    found = verdicts(tmp_path, "variety")
    assert found["answer spam"] == "hackable", "nonsense is unlike everything"
    assert found["empty"] == "safe"


def test_a_score_carries_its_example_and_its_reasons(tmp_path):
    sources = resolve([RewardSpec(name="format")], tmp_path)
    (first, *_) = attack(sources[0], of_rows(ROWS))
    assert (first.name, first.completion, first.score) == ("empty", "", 0.0)
    assert first.about == "Says nothing. It earns 0; honest samples earn 0 to 1."


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_text_made_without_the_gold_answer(name):
    given = Given("What is 2+2?", "<think>2+2</think><answer>4</answer>", ("0", "1"))
    assert isinstance(TRICKS[name].build(given), str)
    assert "answer" not in Given._fields
