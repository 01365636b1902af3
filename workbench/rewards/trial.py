"""Trying a reward on samples before it costs anything: the saved source runs, as it would in a run.

In: a function, a catalogue name, `file.py:function` or pasted code, and samples. Out: scores, and what is
worth knowing about them.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.config import RewardSpec
from workbench.core.types import Group, Prompt, Score
from workbench.rewards.api import reward_input, source
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.api.source import SourceText
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.pool import RewardPool, error_share
from workbench.rewards.runtime.registry import DEFAULT_TIMEOUT, RewardSource

AnyReward = Callable[..., Any] | str | SourceText
"""A function, a name (catalogue, `file.py:function`), source code, or a source at hand."""
Samples = Sequence[Group] | Sequence[Mapping[str, Any]]
"""Groups with rollouts, or plain rows with at least `completion` (see wire.Row)."""


class Checks(NamedTuple):
    """What a person should know about a reward before trusting it."""

    deterministic: bool
    """The same samples scored twice, with other random numbers, gave the same values."""
    milliseconds: float
    """For one sample, the way there and back included."""
    failed: float
    """Share of samples without a value for another reason than that the reward chose None."""
    absent: float
    """Share of samples without a value."""
    low: float | None
    high: float | None
    constant: bool
    """Every value there is equals the others, so no group can learn from it."""


class Trial(NamedTuple):
    """Scores of one reward on some samples, in sample order."""

    scores: list[Score]
    checks: Checks
    printed: str
    """The end of what the reward printed."""


def try_reward(
    reward: AnyReward,
    samples: Samples,
    *,
    options: Mapping[str, int | float | str | bool] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[Score]:
    """One score a sample. Raises RewardError for a reward that cannot be loaded or saved."""
    groups = plain_groups(samples)
    with tempfile.TemporaryDirectory(prefix="workbench-reward-") as folder:
        sources = [saved(reward, Path(folder), groups, options)]
        with RewardPool(sources, timeout=timeout) as pool:
            return pool.score_inputs(groups)


def examine(
    reward: AnyReward,
    samples: Samples,
    *,
    options: Mapping[str, int | float | str | bool] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Trial:
    """Scores and checks; every sample is scored twice. Raises RewardError as `try_reward` does."""
    groups = plain_groups(samples)
    with tempfile.TemporaryDirectory(prefix="workbench-reward-") as folder:
        sources = [saved(reward, Path(folder), groups, options)]
        with RewardPool(sources, timeout=timeout) as pool:
            scores = pool.score_inputs(groups)
            printed = pool.printed
            started = time.perf_counter()
            again = pool.score_inputs(groups, step=1)  # another step, so other random numbers
            seconds = time.perf_counter() - started
    (name,) = (source.name for source in sources)
    values = [score.values[name] for score in scores]
    there = [value for value in values if value is not None]
    checks = Checks(
        deterministic=values == [score.values[name] for score in again],
        milliseconds=1000 * seconds / max(1, len(scores)),
        failed=error_share(scores).get(name, 0.0),
        absent=1 - len(there) / max(1, len(values)),
        low=min(there, default=None),
        high=max(there, default=None),
        constant=len(set(there)) <= 1,
    )
    return Trial(scores, checks, printed)


def dry_run(
    sources: Sequence[RewardSource],
    prompts: Sequence[Prompt],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    max_length: int | None = None,
) -> dict[str, str]:
    """For each reward that fails on every stand-in answer, why: found in seconds instead of after the start.

    The stand-ins are the gold answer in the usual form, the gold answer bare, and nothing at all, for the
    first two prompts. Rewards that hold a model or ask a server are left out. Raises RewardError where one
    cannot be loaded.
    """
    quick = [source for source in sources if not source.shape.alone]
    asked = reward_input.of_groups([Group(prompt, ()) for prompt in prompts[:2]], tokens=True)
    if not quick or not asked:
        return {}
    groups = [
        reward_input.with_completions(
            group, [f"<think></think><answer>{group['answer']}</answer>", group["answer"] or "", ""]
        )
        for group in asked
    ]
    with RewardPool(quick, timeout=timeout, max_length=max_length) as pool:
        scores = pool.score_inputs(groups)
        failing = [name for name, share in pool.error_rate.items() if share == 1.0]
    return {name: scores[0].reasons[name] for name in failing}


def saved(
    reward: AnyReward,
    folder: Path,
    groups: Sequence[RewardInput],
    options: Mapping[str, int | float | str | bool] | None = None,
) -> RewardSource:
    """A reward saved under `folder` and checked against the columns of these groups. Raises RewardError."""
    columns = {name for group in groups for name in group["columns"]}
    text = text_of(reward)
    spec = RewardSpec(name=text.function, options=dict(options or {}))
    (found,) = registry.save_checked([spec], [text], folder, columns)
    return found


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


def plain_groups(samples: Samples) -> list[RewardInput]:
    """Samples as the pool sends them. Raises RewardError for rows without a completion."""
    if samples and isinstance(samples[0], Group):
        return reward_input.of_groups(samples, tokens=True)
    return reward_input.of_rows(samples)  # type: ignore[arg-type]
