"""Short factual final answers: the same after normalisation, or word by word."""

from collections import Counter
from collections.abc import Sequence

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import final_answer, normalised, split_words


@reward(
    title="Same answer",
    range=(0.0, 1.0),
    weakness="One word too many is wrong; accepted answers that the data do not list are wrong.",
    example=Example(
        {"completion": "<answer>The Beatles!</answer>", "answer": "Beatles", "accepted": None}, 1.0
    ),
)
def qa_match(completion: str, answer: str | None, accepted: Sequence[str] | None = None) -> float | None:
    """1 where the final answer equals the reference, or one of the column `accepted`, after normalisation, else 0.

    Normalisation drops case, punctuation and English articles (SQuAD, 1606.05250), and keeps signs, decimal points and C++.
    None without a reference.
    """
    references = _references(answer, accepted)
    return float(normalised(final_answer(completion)) in references) if references else None


@reward(
    title="Same words",
    range=(0.0, 1.0),
    weakness="Word order and negation do not count, and a list of likely words scores a little.",
    example=Example(
        {"completion": "<answer>a red fox</answer>", "answer": "the fox", "accepted": None}, 2 / 3
    ),
)
def qa_f1(completion: str, answer: str | None, accepted: Sequence[str] | None = None) -> float | None:
    """F1 of the final answer's words against the reference, the best over the column `accepted`.

    Words after normalisation as in `qa_match`. None without a reference.
    """
    references = _references(answer, accepted)
    given = split_words(normalised(final_answer(completion)))
    return max((f1(given, split_words(reference)) for reference in references), default=None)


def f1(given: Sequence[str], reference: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, each counted as often as it occurs."""
    shared = (Counter(given) & Counter(reference)).total()
    return 2 * shared / (len(given) + len(reference)) if shared else 0.0


def _references(answer: str | None, accepted: Sequence[str] | None) -> list[str]:
    texts = [] if answer is None else [answer]
    texts += [accepted] if isinstance(accepted, str) else list(accepted or [])
    return [plain for text in texts if (plain := normalised(str(text)))]
