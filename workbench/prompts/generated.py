"""Splits of generated tasks: a finite training split by seed, and a held-out one that never changes.

In: a function that draws one problem of a level. Out: a `Split` without repetitions, levels equally often.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, DataError
from workbench.core.types import Prompt
from workbench.prompts.heldout import is_held_out
from workbench.prompts.task import Split

Draw = Callable[[Random, int], Prompt]

_MAX_REPEATS = 2_000
"""Draws in a row without a new problem, after which a level counts as exhausted."""


def loader(name: str, draw: Draw, default: range, offered: range) -> Callable[[RunConfig], Split]:
    """The `load` of a generated task, with the levels it has by default and those it offers at all."""

    def load(config: RunConfig) -> Split:
        levels = chosen_levels(config, name, default, offered)
        # No run seed here: runs are comparable only if all are evaluated on the same problems.
        heldout = Random(f"{name}/held-out/{levels.start}/{levels.stop}")
        train = Random(f"{name}/train/{config.seed}/{levels.start}/{levels.stop}")
        return Split(
            train=distinct_prompts(draw, train, levels, config.train_problems, held_out=False, name=name),
            heldout=distinct_prompts(draw, heldout, levels, config.eval_problems, held_out=True, name=name),
        )

    return load


def chosen_levels(config: RunConfig, name: str, default: range, offered: range) -> range:
    """The levels of a run. Raises ConfigError for a level that the task does not offer, or an empty range."""
    first = default[0] if config.min_level is None else config.min_level
    last = default[-1] if config.max_level is None else config.max_level
    problems = {
        setting: f"{setting} = {level}: task {name} offers levels {offered[0]} to {offered[-1]}. Choose one."
        for setting, level in (("min_level", first), ("max_level", last))
        if level not in offered
    }
    if not problems and last < first:
        setting = "max_level" if config.max_level is not None else "min_level"
        problems[setting] = (
            f"Levels {first} to {last} are none: where only one bound is set, the other is the default of "
            f"task {name} ({default[0]} to {default[-1]}). Set both min_level and max_level."
        )
    if problems:
        raise ConfigError("\n".join(problems.values()), problems)
    return range(first, last + 1)


def distinct_prompts(
    draw: Draw, rng: Random, levels: Sequence[int], count: int, *, held_out: bool, name: str
) -> list[Prompt]:
    """`count` different problems from one side of the split; a longer list begins with a shorter one.

    Levels come in turn, until one has no more problems. Raises DataError where all together have too few.
    """
    found: dict[str, Prompt] = {}
    left = deque(levels)
    while left and len(found) < count:
        level = left.popleft()
        for _ in range(_MAX_REPEATS):
            prompt = draw(rng, level)
            if prompt.question not in found and is_held_out(prompt.question) == held_out:
                found[prompt.question] = prompt
                left.append(level)
                break
    if len(found) < count:
        setting = "eval_problems" if held_out else "train_problems"
        raise DataError(
            f"task {name} has only {len(found)} different problems of levels {levels[0]} to {levels[-1]}, "
            f"but {setting} = {count}. Lower {setting} or raise max_level."
        )
    return list(found.values())
