"""Free writing: varied words, unlike the other completions of the group, within given constraints."""

from collections.abc import Sequence

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.summary import ngrams
from workbench.rewards.builtin.text import final_answer, words


@reward(
    title="Different words (distinct-n)",
    range=(0.0, 1.0),
    weakness="Short texts score 1 by being short, and so does a list of unrelated words.",
    example=Example({"completion": "a rose is a rose", "n": 2}, 0.75),
)
def distinct(completion: str, *, n: int = 2) -> float:
    """Different n-grams of words / all n-grams of the text; 0 where there are none. (1510.03055)"""
    found = ngrams(words(final_answer(completion)), n)
    return len(found) / found.total() if found else 0.0


@reward(
    title="Unlike the rest of its group",
    range=(0.0, 1.0),
    group=True,
    weakness="Nonsense is unlike everything: use it beside a reward for quality.",
    example=Example({"completions": ["a red fox", "a red hen", "one blue cow"]}, [0.5, 0.5, 1.0]),
)
def variety(completions: Sequence[str], *, n: int = 2) -> list[float]:
    """For each completion the share of its n-grams of words that no other completion of the group has."""
    own = [set(ngrams(words(final_answer(text)), n)) for text in completions]
    scores = []
    for place, mine in enumerate(own):
        others = set().union(*own[:place], *own[place + 1 :])
        scores.append(len(mine - others) / len(mine) if mine else 0.0)
    return scores


@reward(
    title="Keeps the constraints",
    range=(0.0, 1.0),
    weakness="Checks the letter of the constraints and nothing else about the text.",
    example=Example(
        {
            "completion": "The fox slept.",
            "must_include": ["fox", "moon"],
            "must_avoid": "dog",
            "max_words": 5,
        },
        0.75,
    ),
)
def constraints(
    completion: str,
    must_include: Sequence[str] | None = None,
    must_avoid: Sequence[str] | None = None,
    min_words: int | None = None,
    max_words: int | None = None,
    starts_with: str | None = None,
    ends_with: str | None = None,
) -> float | None:
    """Share of the given constraints that the text keeps; each wanted or unwanted word is one of them.

    They come as columns of the data, or as options for all prompts. Words and phrases count whole and in any
    case. None where there are no constraints.
    """
    text = final_answer(completion)
    spoken = words(text)
    flat = f" {' '.join(spoken)} "
    kept = [_occurs(item, flat) for item in _several(must_include)]
    kept += [not _occurs(item, flat) for item in _several(must_avoid)]
    if min_words is not None:
        kept.append(len(spoken) >= min_words)
    if max_words is not None:
        kept.append(len(spoken) <= max_words)
    if starts_with:
        kept.append(text.casefold().startswith(starts_with.casefold()))
    if ends_with:
        kept.append(text.casefold().endswith(ends_with.casefold()))
    return sum(kept) / len(kept) if kept else None


def _several(items: Sequence[str] | None) -> list[str]:
    return [items] if isinstance(items, str) else list(items or [])


def _occurs(item: str, flat: str) -> bool:
    return f" {' '.join(words(item))} " in flat
