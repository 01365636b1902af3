"""The countdown puzzle: does the expression reach the target with the given numbers?"""

import ast
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import answer_tag

_LONGEST = 500
"""Characters; sensible expressions are far shorter, and a deep one would exhaust the parser."""


@reward(
    title="Countdown",
    range=(0.0, 1.0),
    weakness=(
        "Right or wrong only: an expression that misses by one is worth nothing, so hard ones stay silent."
    ),
    example=Example(
        {
            "completion": "<answer>(5*3)+9</answer>",
            "numbers": [3, 5, 9],
            "target": 24,
            "finish_reason": "stop",
        },
        1.0,
    ),
)
def countdown(completion: str, numbers: Sequence[int], target: int, finish_reason: str) -> float:
    """1 where the tagged expression has the value `target` and uses each of `numbers` exactly once, else 0.

    Knows + - * / and parentheses, computes in exact fractions, never runs the text.
    """
    expression = answer_tag(completion)
    if expression is None or finish_reason != "stop":
        return 0.0
    found = evaluate(expression.partition("=")[0])
    if found is None:
        return 0.0
    value, used = found
    return float(value == Fraction(target) and Counter(used) == Counter(int(number) for number in numbers))


def evaluate(expression: str) -> tuple[Fraction, list[int]] | None:
    """The exact value of an expression and the whole numbers in it, or None for anything else."""
    if len(expression) > _LONGEST:
        return None
    plain = expression.strip().replace("×", "*").replace("÷", "/").replace("−", "-")
    used: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int() as number) if type(number) is int:
                used.append(number)
                return Fraction(number)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -value(inner)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return value(left) - value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return value(left) / value(right)
        raise ValueError

    try:
        return value(ast.parse(plain, mode="eval").body), used
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
