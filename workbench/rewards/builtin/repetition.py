"""Whether a completion repeats itself."""

from collections.abc import Sequence

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin import formulas


@reward(
    title="No repetition",
    range=(-1.0, 0.0),
    weakness="Rhymes, tables and long sums repeat for good reasons; paraphrased loops are not seen.",
    example=Example({"tokens": [5, 5, 5, 5, 5], "n": 2}, -0.75),
)
def repetition(tokens: Sequence[int], *, n: int = 3, max_penalty: float = -1.0) -> float:
    """max_penalty x the share of the completion's n-grams of tokens that occurred before. (2502.03373 C.2)"""
    return formulas.repetition_penalty(tokens, n, max_penalty)
