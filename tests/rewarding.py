"""Groups made by hand, and rewards made from a few lines of source."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core.config import RewardSpec
from workbench.core.types import FinishReason, Group, Prompt, Rollout, Score, prompt_id
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import RewardSource, resolve


def group(
    *texts: str,
    answer: str | None = "4",
    question: str = "2+2?",
    finish_reason: FinishReason = "stop",
    ids: Sequence[int] = (5, 6, 7),
    rendered: str = "",
    **columns: Any,
) -> Group:
    """One prompt and its completions, all of them with the same token ids."""
    tokens = np.asarray(ids, dtype=np.int32)
    rollouts = tuple(
        Rollout(tokens, np.zeros(len(tokens), np.float32), text, finish_reason) for text in texts
    )
    return Group(Prompt(question, answer, columns, rendered, (1, 2), prompt_id(question, answer)), rollouts)


def written(folder: Path, code: str, file: str = "reward.py") -> Path:
    """A file with that source, indentation taken off."""
    path = folder / file
    path.write_text(textwrap.dedent(code))
    return path


def sources_of(folder: Path, code: str, function: str = "f", **spec: Any) -> list[RewardSource]:
    """The only reward of a file with that source."""
    path = written(folder, code)
    return resolve([RewardSpec(name=f"{path}:{function}", **spec)], folder / "sources")


def scores_of(
    folder: Path, code: str, groups: Sequence[Group], timeout: float = 10.0, **spec: Any
) -> list[Score]:
    """Scores of the groups by the function `f` of that source."""
    with RewardPool(sources_of(folder, code, **spec), timeout=timeout) as pool:
        return pool.score(groups)
