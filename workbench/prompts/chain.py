"""The chain task: fold `6+8-3*4` from left to right, keeping only the last digit after every operation.

In: a random generator and a number of operations. Out: a problem. Also the exact verifier and the classifier of
completion styles, which the embedded model's recipe, its tests and the records share.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random
from typing import Literal, NamedTuple, get_args

from workbench.core import tags
from workbench.core.types import Prompt

DEFAULT_LEVELS = range(3, 10)
"""Difficulty: how many operations a problem has."""
LEVELS = range(1, 25)

OPERATORS = "++-**"
"""Drawn uniformly, so 40 % additions, 20 % subtractions, 40 % multiplications."""

Style = Literal["direct", "jump", "full", "check", "untagged"]
STYLES: tuple[Style, ...] = get_args(Style)

_FORMAT = re.compile(r"<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>[^<]*)</answer>", re.DOTALL)
_ONE_STEP = re.compile(r"\d[-+*]\d=\d")


class Step(NamedTuple):
    """One operation of a chain; its true value depends on the digit it starts from."""

    operator: str
    digit: int


class Problem(NamedTuple):
    """A chain: a first digit and the operations that follow."""

    start: int
    steps: tuple[Step, ...]

    @property
    def expression(self) -> str:
        """`6+8-3*4`"""
        return str(self.start) + "".join(f"{step.operator}{step.digit}" for step in self.steps)

    @property
    def question(self) -> str:
        """The text of the prompt."""
        return f"Chain: {self.expression}"

    @property
    def answer(self) -> str:
        """The last digit after all operations."""
        value = self.start
        for step in self.steps:
            value = apply(value, step)
        return str(value)


def apply(value: int, step: Step) -> int:
    """The last digit after one operation; -1 wraps to 9."""
    match step.operator:
        case "+":
            return (value + step.digit) % 10
        case "-":
            return (value - step.digit) % 10
        case "*":
            return (value * step.digit) % 10
    raise ValueError(f"unknown operator {step.operator!r}: a chain knows + - *")


def draw(rng: Random, level: int) -> Problem:
    """A random problem of `level` operations: start 0-9, digits 2-9."""
    steps = tuple(Step(rng.choice(OPERATORS), rng.randint(2, 9)) for _ in range(level))
    return Problem(rng.randint(0, 9), steps)


def prompt(rng: Random, level: int) -> Prompt:
    """A random problem as a prompt."""
    problem = draw(rng, level)
    return Prompt(problem.question, problem.answer, {"level": level})


def final_answer(completion: str) -> str | None:
    """The text inside the `<answer>` that ends the completion, or None where there is no such thing."""
    return tags.tag_at_end(completion)


def verify(completion: str, answer: str) -> bool:
    """Exact match of the final answer with the reference answer."""
    return final_answer(completion) == answer


def style(completion: str) -> Style:
    """How a completion was written.

    untagged: not exactly `<think>..</think><answer>..</answer>`; direct: no reasoning; check: works the
    chain out and recomputes it; full: one operation a line; jump: anything else, in practice several
    operations a line.
    """
    match = _FORMAT.fullmatch(completion.strip())
    if match is None:
        return "untagged"
    lines = match["think"].split()
    if not lines:
        return "direct"
    if "check" in lines:
        return "check"
    return "full" if all(_ONE_STEP.fullmatch(line) for line in lines) else "jump"


def style_shares(completions: Iterable[str]) -> Mapping[Style, float]:
    """The share of each style; all of them 0 for no completions."""
    counts = Counter(map(style, completions))
    total = max(counts.total(), 1)
    return {name: counts[name] / total for name in STYLES}
