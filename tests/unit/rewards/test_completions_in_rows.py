"""Completions in rows: text, or one message; anything else is refused with what to give, and never turned into its `str()`."""

import pytest

from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.core.types import Prompt
from workbench.rewards.api.outcome import NOT_APPLICABLE
from workbench.rewards.api.reward_input import of_rows
from workbench.rewards.runtime import registry
from workbench.rewards.trial import dry_run, text_of, try_reward


def test_a_message_is_read_as_its_text():
    message = [{"role": "assistant", "content": "<answer>4</answer>"}]
    (group,) = of_rows([{"completion": message}, {"completion": "<answer>4</answer>"}])
    assert group["completions"] == ["<answer>4</answer>"] * 2


@pytest.mark.parametrize(
    "completion", [None, 4, float("nan"), [], ["a"], [{"role": "assistant"}], {"content": "a"}]
)
def test_what_is_no_text_is_refused_with_its_row(completion):
    with pytest.raises(RewardError, match=r"row 1: .*Give text"):
        of_rows([{"completion": "a"}, {"completion": completion}])


def test_json_with_a_key_content_is_no_chat_message():
    code = 'import json\n\n\ndef mine(completion):\n    return float(json.loads(completion)["content"])\n'
    (score,) = try_reward(code, [{"completion": '{"content": 0.5}'}]).scores
    assert score.reward == 0.5


def test_a_reward_without_a_single_value_is_found_before_the_start(tmp_path):
    code = "def nothing(completion):\n    return None\n"
    sources = registry.save_checked([RewardSpec(name="nothing")], [text_of(code)], tmp_path)
    assert dry_run(sources, [Prompt("2+2?", "4")]) == {"nothing": NOT_APPLICABLE}
