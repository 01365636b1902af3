"""The arithmetic task: one sum, difference or product. Its level is the digits of both numbers together."""

from random import Random

from workbench.core.types import Prompt

DEFAULT_LEVELS = range(2, 6)
LEVELS = range(2, 13)


def draw(rng: Random, level: int) -> Prompt:
    """A random problem whose numbers have `level` digits together; results may be negative."""
    digits = rng.randint(1, level - 1)
    left, right = _number(rng, digits), _number(rng, level - digits)
    operator = rng.choice("+-*")
    value = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return Prompt(f"What is {left} {operator} {right}?", str(value), {"level": level})


def _number(rng: Random, digits: int) -> int:
    return rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)
