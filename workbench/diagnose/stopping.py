"""What adaptive group sizes do to the gradient, exactly, for rewards 0 and 1: a stopping plan in; its bias,
its cost and the weights that undo the bias out.

For any rule that looks only at rewards, the expected leave-one-out gradient of a prompt with pass rate p is
c * grad logit(p), c = E[K (N-K) / (N (N-1))] with K right answers among N. A fixed size has c = p (1-p), the
true gradient of p. So a rule never turns the direction; it changes how much the prompt counts, by
c / (p (1-p)), just as dividing by the group's std does.
"""

import math
from typing import NamedTuple

from workbench.algorithm.advantages import ExtendRule, uncertain

Ends = dict[tuple[int, int], int]
"""(right, wrong) at the end -> number of orders of answers that lead there."""


class Plan(NamedTuple):
    """Draw `start` answers, then `step` more while `advantages.undecided` says so, up to `limit`."""

    start: int
    step: int
    limit: int
    rule: ExtendRule = "until_mixed"
    tolerance: float = 0.15

    def goes_on(self, right: int, wrong: int) -> bool:
        """Whether a group with these answers gets more."""
        if right + wrong >= self.limit:
            return False
        if self.rule == "until_mixed":
            return right == 0 or wrong == 0
        return bool(uncertain(right, wrong, self.tolerance))


def ends(plan: Plan, first: tuple[int, int] = (0, 0)) -> Ends:
    """All ends of a plan and how many answer orders reach each; `first` fixes the first answers."""
    right, wrong = first
    free = plan.start - right - wrong
    running: Ends = {(right + k, wrong + free - k): math.comb(free, k) for k in range(free + 1)}
    ended: Ends = {}
    while running:
        following: Ends = {}
        for (r, w), count in running.items():
            if not plan.goes_on(r, w):
                ended[r, w] = ended.get((r, w), 0) + count
                continue
            more = min(plan.step, plan.limit - r - w)
            for k in range(more + 1):
                key = (r + k, w + more - k)
                following[key] = following.get(key, 0) + count * math.comb(more, k)
        running = following
    return ended


class Outcome(NamedTuple):
    """What a plan does for a prompt with pass rate p."""

    samples: float
    """Expected answers drawn."""
    dead: float
    """Probability that the group ends without signal."""
    factor: float
    """c: expected leave-one-out gradient over grad logit(p)."""
    bias: float
    """c over that of any fixed size, p (1-p); 1 = unbiased."""


def outcome(plan: Plan, p: float, weights: dict[tuple[int, int], float] | None = None) -> Outcome:
    """Exact expectations for 0 < p < 1; `weights` multiply each end's gradient (see `unbiased_weights`)."""
    samples = dead = factor = 0.0
    for (r, w), count in ends(plan).items():
        chance = count * p**r * (1 - p) ** w
        samples += chance * (r + w)
        dead += chance * (r == 0 or w == 0)
        factor += chance * _gradient_factor(r, w) * (1.0 if weights is None else weights[r, w])
    return Outcome(samples, dead, factor, factor / (p * (1 - p)))


def unbiased_weights(plan: Plan) -> dict[tuple[int, int], float]:
    """For each end the weight that makes the group's gradient unbiased whatever p is.

    The unbiased estimate of p (1-p) from an end is the share of its answer orders that start right, wrong
    (Girshick, Mosteller and Savage 1946). until_certain gets weights near 1; until_mixed gets 1 for groups
    mixed at once and 0 for all it extended: there the extra signal *is* the bias.
    """
    starts = ends(plan, first=(1, 1))
    return {
        (r, w): starts.get((r, w), 0) / count / _gradient_factor(r, w) if r and w else 1.0
        for (r, w), count in ends(plan).items()
    }


def _gradient_factor(right: int, wrong: int) -> float:
    n = right + wrong
    return right * wrong / (n * (n - 1)) if n > 1 else 0.0
