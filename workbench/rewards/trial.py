"""Trying a reward on samples before a run: the saved copy of its code runs, as it would in a run.

In: a function, a catalogue name, `file.py:function` or pasted code, and samples. Out: scores, and what was guessed about the
reward.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.config import RewardSpec
from workbench.core.types import Group, Prompt, Score
from workbench.rewards.api import reward_input, source
from workbench.rewards.api.source import SourceText
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import DEFAULT_TIMEOUT, RewardSource

AnyReward = Callable[..., Any] | str | SourceText
"""A function, a name (catalogue, `file.py:function`), source code, or a source at hand."""


class Trial(NamedTuple):
    """One reward on some samples."""

    scores: list[Score]
    """In sample order."""
    guessed: list[str]
    """A sentence for each property that was guessed from the code (`Shape.guessed`)."""


def try_reward(
    reward: AnyReward,
    samples: Iterable[Mapping[str, Any]],
    *,
    options: Mapping[str, int | float | str | bool] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Trial:
    """Score rows with at least `completion` (see `reward_input.Row`). Raises RewardError for a reward that cannot be loaded or
    saved, and for a row without a completion."""
    groups = reward_input.of_rows(samples)
    columns = {name for group in groups for name in group["columns"]}
    text = text_of(reward)
    spec = RewardSpec(name=text.function, options=dict(options or {}))
    with tempfile.TemporaryDirectory(prefix="workbench-reward-") as folder:
        sources = registry.save_checked([spec], [text], Path(folder), columns)
        with RewardPool(sources, timeout=timeout) as pool:
            return Trial(pool.score_inputs(groups), guesses(sources))


def guesses(sources: Iterable[RewardSource]) -> list[str]:
    """A sentence for each property of these rewards that was guessed from their code."""
    return [f"Reward {one.name} {guess}." for one in sources for guess in one.shape.guessed]


def dry_run(
    sources: Sequence[RewardSource],
    prompts: Sequence[Prompt],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    max_length: int | None = None,
) -> dict[str, str]:
    """For each reward that fails on, or has no value for, every made-up completion, why: found in seconds instead of after the start.

    They are the reference answer in the usual format, the reference answer bare, and nothing at all, for the first two prompts.
    Rewards that hold a model or ask a server are left out. Raises RewardError where one cannot be loaded.
    """
    quick = [source for source in sources if not source.shape.alone]
    groups = [
        reward_input.with_completions(
            group, [f"<think></think><answer>{group['answer']}</answer>", group["answer"] or "", ""]
        )
        for group in reward_input.of_groups([Group(prompt, ()) for prompt in prompts[:2]], tokens=True)
    ]
    if not quick or not groups:
        return {}
    with RewardPool(quick, timeout=timeout, max_length=max_length) as pool:
        scores = pool.score_inputs(groups)
        failing = [name for name, share in pool.error_rate.items() if share == 1.0]
        failing += [
            name
            for name in scores[0].values
            if name not in failing and all(score.values.get(name) is None for score in scores)
        ]
    return {name: scores[0].reasons[name] for name in failing}


def text_of(reward: AnyReward) -> SourceText:
    """The source behind any way of giving a reward. Raises RewardError."""
    if isinstance(reward, SourceText):
        return reward
    if isinstance(reward, str):
        return source.from_code(reward) if is_code(reward) else registry.find(reward)
    return source.from_function(reward)


def is_code(text: str) -> bool:
    """Whether a text is source code and not the name of a reward."""
    return "\n" in text or "def " in text
