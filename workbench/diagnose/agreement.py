"""How far a reward agrees with users' ratings: each rating against the sign of the advantage the reward would give.

In: the ratings of a run and rewards. Out: how many agree, and those that do not.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from workbench.diagnose.rescoring import Rewards, prepared, stream
from workbench.record.notes import Notes, Rating, Visit
from workbench.record.reader import Reader

Json = dict[str, Any]
Judgement = Literal["good", "bad", "better"]


class Disagreement(NamedTuple):
    """A rating that the reward contradicts."""

    step: int
    kind: str
    mode: str
    k: int
    prompt_id: str
    sample: int
    """Index of the completion in its group."""
    text: str
    judgement: Judgement
    """The user's; `better` means better than `other`."""
    value: float
    """Its reward."""
    against: float
    """The mean reward of its group, or the reward of `other`."""
    other: str | None = None

    @property
    def said(self) -> Judgement:
        """`judgement`, by the name that notebooks have for it."""
        return self.judgement

    def as_json(self) -> Json:
        """By the names that the command line prints."""
        return {"said" if name == "judgement" else name: value for name, value in self._asdict().items()}


class Agreement(NamedTuple):
    """Counts of ratings, and those that the reward contradicts."""

    agree: int
    total: int
    """Thumbs on scored completions, and pairs of scored completions with different places."""
    disagreements: list[Disagreement]
    absent: int = 0
    """Ratings of completions for which the reward has no value; not in `total`."""


def agreement(run: Reader, rewards: Rewards) -> Agreement:
    """Compares rewards with the ratings of a run.

    A thumb agrees where the advantage has its sign: a good completion scores above the mean of its group, a bad one
    below. A ranking agrees, pair by pair, where the better completion scores more. Raises RewardError.
    """
    rated: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for rating in Notes(run.folder).ratings():
        rated[rating.prompt_id, str(rating.visit)].append(rating)
    if not rated:
        return Agreement(0, 0, [])
    found = Agreement(0, 0, [])
    with prepared(run, rewards) as sources:
        for visit in sorted({Visit.parse(name) for _, name in rated}):
            parts = stream(
                run,
                sources,
                since=visit.step,
                until=visit.step,
                kind=visit.kind,  # type: ignore[arg-type]
                mode=visit.mode or None,  # type: ignore[arg-type]
                only={prompt_id for prompt_id, name in rated if name == str(visit)},
            )
            for part in parts:
                start = 0
                for group in part.groups:
                    end = start + len(group["texts"])
                    values = [score.reward for score in part.scores[start:end]]
                    found = _added(found, _of_group(group, values, rated[group["prompt_id"], str(visit)]))
                    start = end
    return found


def _of_group(group: Json, values: list[float | None], ratings: list[Rating]) -> Agreement:
    """The ratings of one group against the rewards `values` of its completions."""
    indices = {text: index for index, text in reversed(list(enumerate(group["texts"])))}
    here = [rating for rating in ratings if rating.text in indices]
    value_of = {rating.text: values[indices[rating.text]] for rating in here}
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else 0.0
    agree = 0
    disagreements: list[Disagreement] = []
    for judgement, rating, value, against, other in _comparisons(here, value_of, mean):
        if value < against if judgement == "bad" else value > against:
            agree += 1
            continue
        at = (group["step"], group["kind"], group["mode"], group["k"], group["prompt_id"])
        disagreements.append(
            Disagreement(*at, indices[rating.text], rating.text, judgement, value, against, other)
        )
    absent = sum(value_of[rating.text] is None for rating in here)
    return Agreement(agree, agree + len(disagreements), disagreements, absent)


def _comparisons(
    ratings: list[Rating], value_of: dict[str, float | None], mean: float
) -> Iterator[tuple[Judgement, Rating, float, float, str | None]]:
    """A judgement and its rating, the completion's reward, and what that must be above (for `bad` below)."""
    for rating in ratings:
        value = value_of[rating.text]
        if rating.thumb is not None and value is not None:
            yield "good" if rating.thumb else "bad", rating, value, mean, None
    ranked = [rating for rating in ratings if rating.place is not None]
    for up, down in itertools.permutations(ranked, 2):
        value, other = value_of[up.text], value_of[down.text]
        if (up.place or 0) < (down.place or 0) and value is not None and other is not None:
            yield "better", up, value, other, down.text


def _added(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(
        a.agree + b.agree, a.total + b.total, a.disagreements + b.disagreements, a.absent + b.absent
    )
