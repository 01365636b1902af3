"""Shaping by length: completions that run into the limit, and how long a right one may be."""

import math
from collections.abc import Sequence

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin import formulas
from workbench.rewards.builtin.answers import is_right


@reward(
    title="Not too close to the limit",
    range=(-1.0, 0.0),
    weakness="Only pushes samples away from the limit; a model that stops early and wrong is not touched.",
    example=Example({"length": 90, "max_length": 100, "cache": 20}, -0.5),
)
def soft_overlong(length: int, max_length: int, *, cache: int = 0) -> float:
    """0 up to the last `cache` tokens before the max completion length, then linearly down to -1. (DAPO 2503.14476 eq 13)

    cache 0 means a fifth of the max completion length, as in the paper.
    """
    return formulas.soft_overlong(length, max_length, cache or max(1, max_length // 5))


@reward(
    title="Right and brief, wrong and thorough",
    range=(-1.0, 1.0),
    weakness="Pays wrong samples for length: without a repetition penalty they fill up with repeats.",
    example=Example(
        {
            "completion": "<answer>4</answer>",
            "answer": "4",
            "length": 0,
            "max_length": 100,
            "finish_reason": "stop",
        },
        1.0,
    ),
)
def cosine_length(
    completion: str,
    answer: str | None,
    length: int,
    max_length: int,
    finish_reason: str,
    *,
    right_short: float = 1.0,
    right_long: float = 0.5,
    wrong_short: float = -1.0,
    wrong_long: float = -0.5,
    cut: float = -1.0,
) -> float | None:
    """Along a cosine from length 0 to the limit: right completions 1 down to .5, wrong ones -1 up to -.5; truncated ones -1.

    Defaults as in TRL's cosine reward. None without a reference answer. (2502.03373 section 4)
    """
    if answer is None:
        return None
    if finish_reason == "length":
        return cut
    right = is_right(completion, answer, finish_reason)
    start, end = (right_short, right_long) if right else (wrong_short, wrong_long)
    return along_cosine(length / max_length, start, end)


def along_cosine(progress: float, start: float, end: float) -> float:
    """end + (start - end)(1 + cos(pi progress)) / 2: from `start` at progress 0 to `end` at 1, flat at both ends."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(min(1.0, progress) * math.pi))


@reward(
    title="Shorter than the rest of its group",
    range=(-0.5, 0.5),
    group=True,
    weakness="From the first step it rewards the shortest right answer, long before the model reasons well.",
    example=Example(
        {
            "completions": ["<answer>4</answer>", "<answer>4</answer>", "<answer>5</answer>"],
            "answer": "4",
            "lengths": [100, 200, 300],
            "finish_reasons": ["stop", "stop", "stop"],
        },
        [0.5, 0.0, -0.5],
    ),
)
def kimi_length(
    completions: Sequence[str], answer: str | None, lengths: Sequence[int], finish_reasons: Sequence[str]
) -> list[float | None]:
    """.5 for the shortest completion of the group down to -.5 for the longest, at most 0 where it is wrong.

    None without a reference answer. (Kimi k1.5, 2501.12599 section 2.3.3)
    """
    if answer is None:
        return [None] * len(completions)
    right = [is_right(text, answer, reason) for text, reason in zip(completions, finish_reasons, strict=True)]
    return list(formulas.kimi_length(lengths, right))
