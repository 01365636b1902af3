"""One prompt over time: on each visit how its group scored, which final answers it gave, and its best, median and worst sample.

In: a reader. Out: plain JSON values, as the dashboard's routes promise them.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from workbench.core.errors import RunError
from workbench.diagnose.style import final_answer
from workbench.record.reader import Reader
from workbench.view.common.visits import SHOWN_CHARACTERS, visit_summary

Json = dict[str, Any]


def prompt_history(reader: Reader, prompt_id: str) -> Json:
    """All visits of a prompt, training and held-out evaluations, oldest first. Raises RunError for a prompt that this run never
    sampled."""
    history = reader.prompt_history(prompt_id)
    if not history:
        raise RunError(f"This run never asked the prompt {prompt_id[:40]!r}.")
    first = reader.group(history[0]["step"], history[0]["k"], history[0]["kind"], history[0]["mode"] or None)
    return {
        "prompt_id": prompt_id,
        "question": first["question"],
        "answer": first["answer"],
        "prompt": first["prompt"],
        "visits": [_visit(visit) for visit in history],
    }


def _visit(visit: Json) -> Json:
    samples = visit["samples"]
    ranked = sorted(
        (sample for sample in samples if sample["reward"] is not None),
        key=lambda sample: (-sample["reward"], sample["length"]),
    )
    chosen = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    return {
        **visit_summary(visit),
        "answers": _final_answers(samples),
        "length_mean": _mean([sample["length"] for sample in samples]),
        "entropy_mean": _mean([sample["entropy"] for sample in samples]),
        **{name: _excerpt(ranked[place]) if ranked else None for name, place in chosen.items()},
    }


def _final_answers(samples: Sequence[Json]) -> list[list[Any]]:
    """[final answer, how many samples gave it, whether it is right], most frequent first."""
    final = [final_answer(sample["text"]) for sample in samples]
    right = {text: sample["right"] for text, sample in zip(final, samples, strict=True)}
    return [[text, count, right[text]] for text, count in Counter(final).most_common()]


def _excerpt(sample: Json) -> Json:
    return {
        "index": sample["i"],
        "text": sample["text"][:SHOWN_CHARACTERS],
        "reward": sample["reward"],
        "right": sample["right"],
        "length": sample["length"],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
