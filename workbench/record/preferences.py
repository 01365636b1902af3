"""Ratings as preferences: which answer a person put above which, and a file of such pairs to train on.

In: ratings of one run. Out: pairs, and JSON lines in the form that preference trainers read (prompt, chosen,
rejected).
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workbench.core.errors import RunError
from workbench.record.files import write_bytes
from workbench.record.notes import Notes, Rating, Visit
from workbench.record.reader import Reader


class Pair(NamedTuple):
    """One answer that a person put above another one to the same prompt."""

    prompt_id: str
    chosen: str
    rejected: str
    how: Literal["thumb", "rank"]
    visit: Visit
    """When the better one was asked."""


def pairs(ratings: Iterable[Rating]) -> list[Pair]:
    """Every pair that follows from ratings: good over bad answers to a prompt, whenever they were given, and the
    places within a ranked group. A pair that was said both ways is left out."""
    thumbs: dict[str, dict[str, Rating]] = defaultdict(dict)
    ranked: dict[tuple[str, Visit], list[Rating]] = defaultdict(list)
    for rating in sorted(ratings, key=lambda rating: rating.time):
        if rating.thumb is not None:
            thumbs[rating.prompt_id][rating.text] = rating  # the last word counts
        if rating.place is not None:
            ranked[rating.prompt_id, rating.visit].append(rating)
    found: dict[tuple[str, str, str], Pair] = {}
    for prompt_id, mine in thumbs.items():
        good, bad = ([one for one in mine.values() if one.thumb is side] for side in (True, False))
        for up, down in itertools.product(good, bad):
            pair = Pair(prompt_id, up.text, down.text, "thumb", up.visit)
            found.setdefault(pair[:3], pair)
    for (prompt_id, visit), group in ranked.items():
        for up, down in itertools.permutations(group, 2):
            if (up.place or 0) < (down.place or 0):
                pair = Pair(prompt_id, up.text, down.text, "rank", visit)
                found.setdefault(pair[:3], pair)
    return [pair for pair in found.values() if (pair.prompt_id, pair.rejected, pair.chosen) not in found]


def rows(reader: Reader) -> list[dict[str, Any]]:
    """The pairs of a run with their prompts: prompt (exactly what the model read), question, answer, chosen,
    rejected, how, step, kind. Pairs whose prompt the record does not hold (yet) are left out."""
    prompts = {row["prompt_id"]: row for row in reader.prompts()}
    return [
        {
            "prompt": prompts[pair.prompt_id]["prompt"],
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "question": prompts[pair.prompt_id]["question"],
            "answer": prompts[pair.prompt_id]["answer"],
            "prompt_id": pair.prompt_id,
            "how": pair.how,
            "step": pair.visit.step,
            "kind": pair.visit.kind,
        }
        for pair in pairs(Notes(reader.folder).ratings())
        if pair.prompt_id in prompts
    ]


def export(reader: Reader, path: Path) -> int:
    """Write the pairs of a run as JSON lines and return how many. Raises RunError where there is none."""
    found = rows(reader)
    if not found:
        raise RunError(
            f"Nobody preferred one answer to another in run {reader.folder.id} yet. In the Group view g and x "
            "rate an answer, r ranks a group; a pair takes a good and a bad one, or two places."
        )
    lines = [json.dumps(row, ensure_ascii=False) for row in found]
    try:
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    return len(found)
