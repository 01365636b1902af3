"""Whether a reward says what people said: each of their ratings against what the reward would have asked.

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
Said = Literal["good", "bad", "better"]


class Disagreement(NamedTuple):
    """A rating that the reward does not follow."""

    step: int
    kind: str
    mode: str
    k: int
    prompt_id: str
    sample: int
    """Place of the answer in its group, from 0."""
    text: str
    said: Said
    """What the person said; `better` than `other`."""
    value: float
    """What the reward gives it."""
    against: float
    """The mean of its group, or what the other answer gets."""
    other: str | None = None


class Agreement(NamedTuple):
    """How far a reward goes along with people."""

    agree: int
    total: int
    """Thumbs on scored answers, and pairs of scored answers with different places."""
    disagreements: list[Disagreement]
    absent: int = 0
    """Ratings of answers for which the reward has no value; not in `total`."""


def agreement(run: Reader, rewards: Rewards) -> Agreement:
    """Hold rewards against the ratings of a run.

    A thumb agrees where GRPO would push the answer that way: a good one scores above the mean of its group, a bad
    one below. A rank agrees, pair by pair, where the better answer scores more. Raises RewardError.
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
    """The ratings of one group against the values that a reward gives its answers."""
    places = {text: place for place, text in reversed(list(enumerate(group["texts"])))}
    here = [rating for rating in ratings if rating.text in places]
    value_of = {rating.text: values[places[rating.text]] for rating in here}
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else 0.0
    agree = 0
    against: list[Disagreement] = []

    for said, rating, value, bar, other in _asked(here, value_of, mean):
        if value < bar if said == "bad" else value > bar:
            agree += 1
            continue
        at = (group["step"], group["kind"], group["mode"], group["k"], group["prompt_id"])
        against.append(Disagreement(*at, places[rating.text], rating.text, said, value, bar, other))
    absent = sum(value_of[rating.text] is None for rating in here)
    return Agreement(agree, agree + len(against), against, absent)


def _asked(
    ratings: list[Rating], value_of: dict[str, float | None], mean: float
) -> Iterator[tuple[Said, Rating, float, float, str | None]]:
    """What was said of which answer, its value, and what that must lie above (for `bad` below)."""
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
