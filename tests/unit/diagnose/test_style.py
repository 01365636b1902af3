"""The style of a completion and its final answer depend on the text alone."""

import numpy as np
import pytest

from workbench.core.types import Rollout
from workbench.diagnose.style import STYLES, final_answer, style


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think></think><answer>7</answer>", "direct"),
        ("<answer>7</answer>", "direct"),
        ("<think>6+8-3=1\n1*4*8=2\n</think><answer>2</answer>", "jumps"),
        ("<think>6+8=4\n4-3=1\n</think><answer>1</answer>", "worked"),
        ("<think>6+8=4\ncheck\n6+8=4\nok\n</think><answer>4</answer>", "checked"),
        ("Twelve and thirty make forty-two: \\boxed{42}", "worked"),
        ("7", "bare"),
        ("", "bare"),
        ("think answer 7", "bare"),
    ],
)
def test_a_style_by_its_form(text: str, expected: str) -> None:
    assert style(Rollout(np.zeros(1, np.int32), np.zeros(1, np.float32), text, "stop")) == expected
    assert expected in STYLES


def test_a_completion_cut_at_the_limit_is_unfinished_whatever_its_text() -> None:
    text = "<think>check</think><answer>7</answer>"
    assert style(Rollout(np.zeros(1, np.int32), np.zeros(1, np.float32), text, "length")) == "unfinished"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>1</answer> no <answer> 2\n</answer>", "2"),
        ("\\boxed{3}", "3"),
        ("<answer></answer>", ""),
        ("4", None),
    ],
)
def test_the_final_answer_is_the_last_one(text: str, expected: str | None) -> None:
    assert final_answer(text) == expected
