"""What the embedded model is pretrained on: chain problems with completions in a mixture of styles, most of them lazy.

In: a seed and a step. Out: the step's texts, the same on every machine. The mixture leaves reinforcement learning something to find: the
model learns every single-digit fact, yet seldom works a problem out. Training then chooses among these styles.
"""

from collections.abc import Mapping
from random import Random
from typing import Final, NamedTuple

from workbench.prompts import chain, heldout
from workbench.prompts.chain import Problem, Step, Style

TEXTS_PER_STEP: Final = 48
UNTAGGED: Final = 0.12
"""Share of texts without the tags, so that a format reward has something to teach."""
LAZY: Final[Mapping[Style, float]] = {"direct": 0.60, "jump": 0.26, "full": 0.10, "check": 0.04}
"""The mixture that the finished model reproduces."""
DILIGENT: Final[Mapping[Style, float]] = {"direct": 0.25, "jump": 0.20, "full": 0.35, "check": 0.20}
"""The mixture of the first phase, where the single-digit facts are learnt: only worked steps show them."""
DILIGENT_PHASE: Final = 0.50
"""Share of all steps that the first phase takes."""

_DIRECT_RIGHT = 0.50
_SLIP = 0.03
_JUMP_SLIP = 0.10
_MAX_PASSES = 3


class Text(NamedTuple):
    """One pretraining example; only the completion is trained on."""

    problem: Problem
    completion: str


def texts(seed: int, step: int, total_steps: int) -> list[Text]:
    """The texts of one step, a pure function of its arguments. No held-out problem is ever among them."""
    rng = Random(f"embedded/{seed}/{step}")
    mixture = DILIGENT if step < DILIGENT_PHASE * total_steps else LAZY
    return [_text(rng, mixture) for _ in range(TEXTS_PER_STEP)]


def _text(rng: Random, mixture: Mapping[Style, float]) -> Text:
    problem = chain.draw(rng, rng.choice(chain.DEFAULT_LEVELS))
    while heldout.is_held_out(problem.question):
        problem = chain.draw(rng, rng.choice(chain.DEFAULT_LEVELS))
    [style] = rng.choices(list(mixture), list(mixture.values()))
    think, answer = _WRITERS[style](rng, problem)
    if rng.random() >= UNTAGGED:
        return Text(problem, f"<think>{think}</think><answer>{answer}</answer>")
    return Text(problem, f"{think}answer {answer}" if rng.random() < 0.5 else str(answer))


def _direct(rng: Random, problem: Problem) -> tuple[str, int]:
    """No reasoning; the final answer is right half of the time, so the model learns to guess."""
    return "", int(problem.answer) if rng.random() < _DIRECT_RIGHT else rng.randint(0, 9)


def _jump(rng: Random, problem: Problem) -> tuple[str, int]:
    """Two to four operations a line: more than the model can do in its head."""
    value, lines, rest = problem.start, [], list(problem.steps)
    while rest:
        size = rng.randint(2, 4)
        together, rest = rest[:size], rest[size:]
        line = str(value) + "".join(f"{step.operator}{step.digit}" for step in together)
        for step in together:
            value = _slip(rng, chain.apply(value, step), _JUMP_SLIP)
        lines.append(f"{line}={value}\n")
    return "".join(lines), value


def _full(rng: Random, problem: Problem) -> tuple[str, int]:
    """One operation a line, with a rare slip that is carried on."""
    return _worked(rng, problem.start, problem.steps)


def _check(rng: Random, problem: Problem) -> tuple[str, int]:
    """Worked out, then recomputed until two passes in a row agree."""
    think, value = _full(rng, problem)
    for _ in range(_MAX_PASSES - 1):
        again, second = _full(rng, problem)
        agree = second == value
        think += "check\n" + again + ("ok\n" if agree else "wait\n")
        value = second
        if agree:
            break
    return think, value


_WRITERS = {"direct": _direct, "jump": _jump, "full": _full, "check": _check}


def _worked(rng: Random, value: int, steps: tuple[Step, ...]) -> tuple[str, int]:
    lines = []
    for step in steps:
        result = _slip(rng, chain.apply(value, step), _SLIP)
        lines.append(f"{value}{step.operator}{step.digit}={result}\n")
        value = result
    return "".join(lines), value


def _slip(rng: Random, value: int, probability: float) -> int:
    """The value, or with this probability another digit."""
    return (value + rng.randint(1, 9)) % 10 if rng.random() < probability else value
