"""Ratings as preference pairs.

In: ratings of one run. Out: pairs (chosen, rejected), and JSON lines in the format of preference trainers (prompt,
chosen, rejected).
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
    """A completion that was rated above another one of the same prompt."""

    prompt_id: str
    chosen: str
    rejected: str
    how: Literal["thumb", "rank"]
    visit: Visit
    """When the chosen one was sampled."""


def pairs(ratings: Iterable[Rating]) -> list[Pair]:
    """Every pair that follows from ratings: each good completion over each bad one of the same prompt, of any step, and
    better over worse places within a ranked group. Pairs that contradict each other are left out."""
    thumbs: dict[str, dict[str, Rating]] = defaultdict(dict)
    ranked: dict[tuple[str, Visit], list[Rating]] = defaultdict(list)
    for rating in sorted(ratings, key=lambda rating: rating.time):
        if rating.thumb is not None:
            thumbs[rating.prompt_id][rating.text] = rating  # the newest counts
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
    """The pairs of a run: prompt (the text that the model read), question, `answer` (the reference answer), chosen,
    rejected, prompt_id, how, step, kind. Pairs whose prompt is not recorded (yet) are left out."""
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
            f"No sample of run {reader.folder.id} is rated above another yet. In the Group view g and x "
            "rate a sample, r ranks a group; a pair takes a good and a bad one, or two places."
        )
    lines = [json.dumps(row, ensure_ascii=False) for row in found]
    try:
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    return len(found)
