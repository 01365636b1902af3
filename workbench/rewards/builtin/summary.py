"""Summaries: like the reference, covering what matters, grounded in the source, of the right length."""

from collections import Counter
from collections.abc import Sequence

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import final_answer, words


@reward(
    title="Like the reference (ROUGE)",
    range=(0.0, 1.0),
    weakness="Rewards the reference's words, not its meaning; a good summary in other words scores low.",
    example=Example({"completion": "the cat sat", "answer": "the cat ran away"}, 4 / 7),
)
def rouge(completion: str, answer: str | None, *, kind: str = "l") -> float | None:
    """ROUGE F1 against the reference: kind `l` by longest common subsequence, `1` or `2` by n-grams.

    Lin 2004. Words in lower case, no stemming. None without a reference.
    """
    if kind not in ("l", "1", "2"):
        raise ValueError(f"kind is {kind!r}: ROUGE is 'l', '1' or '2' here.")
    if answer is None or not (reference := words(answer)):
        return None
    given = words(final_answer(completion))
    if kind == "l":
        shared, sizes = common_subsequence(given, reference), (len(given), len(reference))
    else:
        left, right = ngrams(given, int(kind)), ngrams(reference, int(kind))
        shared, sizes = (left & right).total(), (left.total(), right.total())
    return 2 * shared / sum(sizes) if shared else 0.0


@reward(
    title="Names what matters",
    range=(0.0, 1.0),
    weakness="A bare list of the keywords scores 1; give it together with a length or fluency reward.",
    example=Example({"completion": "The pool closes.", "keywords": ["pool", "spring"]}, 0.5),
)
def coverage(completion: str, keywords: Sequence[str]) -> float | None:
    """Share of the column `keywords` that occur in the summary as whole words. None where there are none."""
    wanted = [words(item) for item in ([keywords] if isinstance(keywords, str) else keywords)]
    wanted = [item for item in wanted if item]
    given = f" {' '.join(words(final_answer(completion)))} "
    return sum(f" {' '.join(item)} " in given for item in wanted) / len(wanted) if wanted else None


@reward(
    title="Grounded in the source",
    range=(0.0, 1.0),
    weakness="Copying the first sentence of the source scores 1, and true paraphrases lose.",
    example=Example({"completion": "The pool burns.", "source": "The old pool closes."}, 2 / 3),
)
def grounded(completion: str, source: str) -> float:
    """Share of the summary's words that occur in the column `source`; 0 for an empty summary. (1804.11283)"""
    given, known = words(final_answer(completion)), set(words(source))
    return sum(word in known for word in given) / len(given) if given else 0.0


@reward(
    title="Length of a summary",
    range=(0.0, 1.0),
    weakness="Any text of that length scores 1.",
    example=Example(
        {"completion": "one two three four", "source": "w " * 10, "most": 0.2, "least": 0.1}, 0.0
    ),
)
def summary_length(completion: str, source: str, *, least: float = 0.05, most: float = 0.4) -> float:
    """1 where the summary has between `least` and `most` of the source's words, falling linearly outside.

    It reaches 0 at no words and at twice `most`.
    """
    share = len(words(final_answer(completion))) / max(1, len(words(source)))
    if share < least:
        return share / least
    return 1.0 if share <= most else max(0.0, 2.0 - share / most)


def ngrams(items: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Each run of n words and how often it occurs."""
    return Counter(tuple(items[start : start + n]) for start in range(len(items) - n + 1))


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence; time and memory are those of a table of both lengths."""
    row = [0] * (len(right) + 1)
    for item in left:
        diagonal = 0
        for column, other in enumerate(right, 1):
            above = row[column]
            row[column] = diagonal + 1 if item == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
