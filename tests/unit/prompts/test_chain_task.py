"""The chain task: its arithmetic, its verifier, its styles."""

from random import Random

import pytest

from workbench.prompts import chain
from workbench.prompts.chain import Problem, Step


def test_a_chain_is_folded_from_left_to_right_keeping_the_last_digit() -> None:
    # 6+8=14 -> 4, 4-3=1, 1*4=4, 4*8=32 -> 2, 2+5=7, 7+7=14 -> 4
    steps = (Step("+", 8), Step("-", 3), Step("*", 4), Step("*", 8), Step("+", 5), Step("+", 7))
    problem = Problem(6, steps)
    assert problem.question == "Chain: 6+8-3*4*8+5+7"
    assert problem.answer == "4"


def test_below_zero_a_chain_counts_back_from_ten() -> None:
    assert chain.apply(2, Step("-", 9)) == 3


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="knows"):
        chain.apply(1, Step("/", 2))


def test_drawn_problems_have_their_level_and_all_operators_in_their_shares() -> None:
    rng = Random(0)
    problems = [chain.draw(rng, 9) for _ in range(400)]
    assert {len(problem.steps) for problem in problems} == {9}
    operators = "".join(step.operator for problem in problems for step in problem.steps)
    shares = {sign: operators.count(sign) / len(operators) for sign in "+-*"}
    assert shares == pytest.approx({"+": 0.4, "-": 0.2, "*": 0.4}, abs=0.03)
    assert {step.digit for problem in problems for step in problem.steps} == set(range(2, 10))
    assert {problem.start for problem in problems} == set(range(10))


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("<think></think><answer>7</answer>", True),
        ("<think></think><answer>7</answer>\n", True),
        ("<answer>3</answer><answer>7</answer>", True),
        ("<answer>7</answer><answer>3</answer>", False),
        ("<answer>7</answer> or so", False),
        ("<answer>07</answer>", False),
        ("<answer> 7</answer>", False),
        ("<answer>7", False),
        ("answer 7", False),
        ("", False),
    ],
)
def test_only_an_exact_final_answer_is_right(completion: str, right: bool) -> None:
    assert chain.verify(completion, "7") is right


@pytest.mark.parametrize(
    ("completion", "style"),
    [
        ("<think></think><answer>7</answer>", "direct"),
        ("<think>6+8-3=1\n1*4=4\n</think><answer>4</answer>", "jump"),
        ("<think>6+8=4\n4-3=1\n1*4=4\n</think><answer>4</answer>", "full"),
        ("<think>6+8=4\n4-3=1\ncheck\n6+8=4\n4-3=1\nok\n</think><answer>1</answer>", "check"),
        ("<think>hm</think><answer>4</answer>", "jump"),
        ("6+8=4\nanswer 4", "untagged"),
        ("4", "untagged"),
        ("", "untagged"),
        ("<think>6+8=4\n", "untagged"),
        ("<think></think><answer>7</answer> and more", "untagged"),
    ],
)
def test_styles_are_distinguished(completion: str, style: str) -> None:
    assert chain.style(completion) == style


def test_style_shares_add_up_and_are_zero_for_nothing() -> None:
    shares = chain.style_shares(["4", "<think></think><answer>7</answer>", "5", "6"])
    assert shares == {"direct": 0.25, "jump": 0.0, "full": 0.0, "check": 0.0, "untagged": 0.75}
    assert set(chain.style_shares([]).values()) == {0.0}
