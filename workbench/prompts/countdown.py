"""The countdown task: reach a target with every given number used once. Its level is how many numbers are given.

Many expressions can be right, and `answer` is only one of them: the verifier reads the columns `numbers` and `target`.
"""

from random import Random

from workbench.core.types import Prompt

DEFAULT_LEVELS = range(3, 5)
LEVELS = range(2, 7)

_TARGETS = range(5, 100)


def draw(rng: Random, level: int) -> Prompt:
    """A random solvable problem: `level` numbers of 1-9, a target of 5-99, whole numbers all the way."""
    while True:
        numbers = [rng.randint(1, 9) for _ in range(level)]
        value, expression = _combine(rng, numbers)
        if value in _TARGETS:
            # Sorted, so that one problem has one text and cannot lie on both sides of the split.
            numbers.sort()
            columns = {"level": level, "numbers": numbers, "target": value}
            return Prompt(f"Make {value} from {', '.join(map(str, numbers))}.", expression, columns)


def _combine(rng: Random, numbers: list[int]) -> tuple[int, str]:
    """Join random parts by random operators until one is left."""
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        rng.shuffle(parts)
        (left, left_text), (right, right_text) = parts.pop(), parts.pop()
        operators = "+-*" + ("/" if right and left % right == 0 else "")
        operator = rng.choice(operators)
        value = {"+": left + right, "-": left - right, "*": left * right, "/": left // (right or 1)}[operator]
        parts.append((value, f"({left_text}{operator}{right_text})"))
    value, text = parts[0]
    return value, text[1:-1]
