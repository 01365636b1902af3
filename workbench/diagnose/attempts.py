"""pass@k, avg@k and maj@k of problems with several completions each.

In: right or wrong and final answer of each completion. Out: glossary names with values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.diagnose import text

_RIGHT = "\0right"
"""Stands for every right answer in a vote: 42 and 42.0 are the same vote."""


class Attempts(NamedTuple):
    """The completions of one problem, in the order in which they were sampled."""

    right: NDArray[np.float64]
    """(G,) 1, 0, or NaN where no reward judged it."""
    final_answers: Sequence[str | None]
    """(G,) None where a completion has none."""


def at_k(problems: Sequence[Attempts]) -> dict[str, float]:
    """`pass_at/<k>`, `avg_at/<k>` and `maj_at/<k>`: means over the problems with at least k judged completions.

    k runs over the powers of 2 up to the smallest number of judged completions among problems with several, and that number.
    pass@k is the unbiased estimate from all n completions, 1 - C(n - c, k) / C(n, k) with c right ones (Chen 2021, 2107.03374);
    avg@k and maj@k use the first k. maj@k: a tie goes to the final answer seen first, a completion without one does not vote,
    and a problem without votes is left out.
    """
    judged = [_judged(problem) for problem in problems]
    several = [len(problem.right) for problem in judged if len(problem.right) > 1]
    found: dict[str, float] = {}
    if not several:
        return found
    common = min(several)
    for k in sorted({common, *(2**power for power in range(1, common.bit_length()))}):
        enough = [problem for problem in judged if len(problem.right) >= k]
        found[f"pass_at/{k}"] = _mean([text.pass_at_k(len(p.right), int(p.right.sum()), k) for p in enough])
        found[f"avg_at/{k}"] = _mean([text.avg_at_k(k, int(p.right[:k].sum())) for p in enough])
        votes = [_votes(problem, k) for problem in enough]
        if any(vote for vote in votes):
            found[f"maj_at/{k}"] = _mean([text.maj_at_k(vote, _RIGHT) for vote in votes if vote])
    return found


def _judged(problem: Attempts) -> Attempts:
    known = np.isfinite(problem.right)
    return Attempts(
        problem.right[known], [a for a, there in zip(problem.final_answers, known, strict=True) if there]
    )


def _votes(problem: Attempts, k: int) -> list[str]:
    """The votes of the first k completions; right ones vote alike."""
    pairs = zip(problem.final_answers[:k], problem.right[:k], strict=True)
    return [_RIGHT if right else answer for answer, right in pairs if answer is not None]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
