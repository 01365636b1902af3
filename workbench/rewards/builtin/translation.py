"""Translations against a reference, by sacrebleu."""

from importlib import import_module
from typing import Any

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import final_answer


def prepare() -> None:
    """Load the library before the clock of the first call runs."""
    _metrics()


@reward(
    title="Like the reference, letter by letter (chrF)",
    range=(0.0, 1.0),
    weakness=(
        "One reference stands for all good translations; copying the source scores well between sisters."
    ),
    example=Example({"completion": "Wo ist der Bahnhof?", "answer": "Wo ist der Bahnhof?"}, 1.0),
)
def chrf(completion: str, answer: str | None) -> float | None:
    """chrF of the sentence against the reference, 0 to 1. None without a reference. (Popović 2015,
    sacrebleu)"""
    if not answer:
        return None
    return float(_metrics().CHRF().sentence_score(final_answer(completion), [answer]).score) / 100.0


@reward(
    title="Like the reference, word by word (BLEU)",
    range=(0.0, 1.0),
    weakness="Coarse on single sentences: one changed word in five costs more than half.",
    example=Example({"completion": "Wo ist der alte Bahnhof?", "answer": "Wo ist der alte Bahnhof?"}, 1.0),
)
def bleu(completion: str, answer: str | None) -> float | None:
    """Sentence BLEU against the reference, 0 to 1, exponential smoothing. None without a reference.
    (sacrebleu)"""
    if not answer:
        return None
    scorer = _metrics().BLEU(effective_order=True)
    return min(1.0, float(scorer.sentence_score(final_answer(completion), [answer]).score) / 100.0)


def _metrics() -> Any:
    return import_module("sacrebleu.metrics")
