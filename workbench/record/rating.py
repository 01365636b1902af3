"""Ratings of completions, and the completions whose ratings a run waits for.

waiting.json holds groups that the worker wants rated before it scores them; they are not in run.db yet, because a
step is written whole, with its rewards. The worker writes the file; app, command line and notebook read it and write
ratings to notes.db.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from workbench.core.errors import RunError
from workbench.core.types import EvalMode, Group, GroupKind
from workbench.record.files import write_json
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader

STOP_WAITING = "go on"
"""Kind of a note that names a step: the run shall wait for it no longer."""


class WaitingGroup(TypedDict):
    """One group whose ratings the run waits for."""

    k: int
    prompt_id: str
    question: str
    answer: str | None
    texts: list[str]
    lengths: list[int]


class Waiting(TypedDict):
    """All that a run waits for."""

    step: int
    until: float
    """Unix seconds; then the run continues with the ratings it has."""
    groups: list[WaitingGroup]


def request_ratings(folder: RunFolder, step: int, until: float, groups: Sequence[Group]) -> None:
    """Asks for ratings of these groups. Only the worker calls this."""
    waiting_groups = [
        WaitingGroup(
            k=k,
            prompt_id=group.prompt.id,
            question=group.prompt.question,
            answer=group.prompt.answer,
            texts=[rollout.text for rollout in group.rollouts],
            lengths=[rollout.length for rollout in group.rollouts],
        )
        for k, group in enumerate(groups)
    ]
    write_json(folder.waiting_path, Waiting(step=step, until=until, groups=waiting_groups))


def end_request(folder: RunFolder) -> None:
    """Ends the request. Only the worker calls this."""
    folder.waiting_path.unlink(missing_ok=True)


def waiting(folder: RunFolder) -> Waiting | None:
    """What the run waits for; None where it does not wait."""
    with contextlib.suppress(OSError, ValueError):
        found: Waiting = json.loads(folder.waiting_path.read_bytes())
        return found
    return None


def stop_waiting(folder: RunFolder) -> int:
    """Makes a waiting run continue with the ratings it has; returns its step. Raises RunError where it does not wait."""
    found = waiting(folder)
    if found is None:
        raise RunError(f"Run {folder.id} does not wait for ratings.")
    Notes(folder).keep(STOP_WAITING, str(found["step"]))
    return found["step"]


def rate(
    reader: Reader,
    step: int,
    k: int,
    sample: int,
    good: bool | None = None,
    *,
    place: int | None = None,
    kind: GroupKind = "train",
    mode: EvalMode | None = None,
) -> None:
    """Rates one sample of group `k` of a step as good or bad, or gives it a place in its group (1 the best); without
    either, removes its rating. Raises RunError where there is no such sample."""
    thumbs = {sample: good} if place is None else {}
    places = {sample: place} if good is None else {}
    rate_group(reader, step, k, thumbs, places, kind, mode)


def rate_group(
    reader: Reader,
    step: int,
    k: int,
    thumbs: Mapping[int, bool | None],
    places: Mapping[int, int | None],
    kind: GroupKind = "train",
    mode: EvalMode | None = None,
) -> None:
    """Thumbs and places of samples of one group, by their index in it; None removes one. Raises RunError where there
    is no such sample."""
    prompt_id, texts = _group(reader, step, k, kind, mode)
    for sample in (*thumbs, *places):
        if not 0 <= sample < len(texts):
            raise RunError(
                f"Group {k} of step {step} has no sample {sample}: its samples are numbered 0 to "
                f"{len(texts) - 1}."
            )
    visit, notes = Visit(step, kind, mode or ""), Notes(reader.folder)
    for sample, good in thumbs.items():
        notes.thumb(visit, prompt_id, texts[sample], good)
    if places:
        notes.rank(visit, prompt_id, {texts[sample]: place for sample, place in places.items()})


def ratings_of_group(reader: Reader, group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{thumb, place} of every sample of a group as `Reader.group` gives it: the newest thumb of the same text, and its
    place in this visit."""
    texts = [sample["text"] for sample in group["samples"]]
    return _ratings_of(
        reader, Visit(group["step"], group["kind"], group["mode"] or ""), group["prompt_id"], texts
    )


def waiting_groups(reader: Reader) -> dict[str, Any] | None:
    """What the run waits for, every sample with its text, length, thumb and place; None where it does not wait."""
    found = waiting(reader.folder)
    if found is None:
        return None
    groups: list[dict[str, Any]] = []
    for group in found["groups"]:
        ratings = _ratings_of(reader, Visit(found["step"]), group["prompt_id"], group["texts"])
        rated = zip(group["texts"], group["lengths"], ratings, strict=True)
        samples = [
            {"index": index, "text": text, "length": length, **rating}
            for index, (text, length, rating) in enumerate(rated)
        ]
        fields = {name: group[name] for name in ("k", "prompt_id", "question", "answer")}
        groups.append(fields | {"step": found["step"], "kind": "train", "mode": None, "samples": samples})
    return {"step": found["step"], "until": found["until"], "groups": groups}


def _ratings_of(reader: Reader, visit: Visit, prompt_id: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    thumbs: dict[str, bool | None] = {}
    places: dict[str, int | None] = {}
    for rating in Notes(reader.folder).ratings():
        if rating.prompt_id == prompt_id:
            if rating.thumb is not None:
                thumbs[rating.text] = rating.thumb
            if rating.visit == visit:
                places[rating.text] = rating.place
    return [{"thumb": thumbs.get(text), "place": places.get(text)} for text in texts]


def _group(
    reader: Reader, step: int, k: int, kind: GroupKind, mode: EvalMode | None
) -> tuple[str, list[str]]:
    """Prompt id and texts of a recorded group, or of one that waits for ratings."""
    found = waiting(reader.folder)
    if found is not None and kind == "train" and found["step"] == step and k < len(found["groups"]):
        return found["groups"][k]["prompt_id"], found["groups"][k]["texts"]
    group = reader.group(step, k, kind, mode)
    return group["prompt_id"], [sample["text"] for sample in group["samples"]]
