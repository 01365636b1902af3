"""Rating an answer of a run, and the answers that a run waits to have rated.

waiting.json: what the worker wants rated before it goes on. Such answers are not recorded yet: a step reaches
run.db whole, and its rewards are still open. The worker writes that file; who rates reads it.
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
"""Kind of a note: the step it names is not to be waited for any longer."""


class WaitingGroup(TypedDict):
    """One group that waits."""

    k: int
    prompt_id: str
    question: str
    answer: str | None
    texts: list[str]
    lengths: list[int]


class Waiting(TypedDict):
    """What a run waits for."""

    step: int
    until: float
    """Unix seconds; then the run goes on with the ratings there are."""
    groups: list[WaitingGroup]


def request_ratings(folder: RunFolder, step: int, until: float, groups: Sequence[Group]) -> None:
    """Put answers up for rating. Only the worker calls this."""
    asked = [
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
    write_json(folder.waiting_path, Waiting(step=step, until=until, groups=asked))


def end_request(folder: RunFolder) -> None:
    """Nothing waits any more. Only the worker calls this."""
    folder.waiting_path.unlink(missing_ok=True)


def waiting(folder: RunFolder) -> Waiting | None:
    """What the run waits for; None where it does not."""
    with contextlib.suppress(OSError, ValueError):
        found: Waiting = json.loads(folder.waiting_path.read_bytes())
        return found
    return None


def stop_waiting(folder: RunFolder) -> int:
    """Tell a waiting run to go on with the ratings there are; its step. Raises RunError where it does not
    wait."""
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
    """Say that an answer is good or bad, or give it its place in its group (1 the best); neither takes back what
    was said. Raises RunError where there is no such answer."""
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
    """Thumbs and places of some answers of one group, by their place in it; None takes one back. Raises RunError
    where there is no such answer."""
    prompt_id, texts = _group(reader, step, k, kind, mode)
    for sample in (*thumbs, *places):
        if not 0 <= sample < len(texts):
            raise RunError(
                f"Group {k} of step {step} has no answer {sample}: its answers are numbered 0 to "
                f"{len(texts) - 1}."
            )
    visit, notes = Visit(step, kind, mode or ""), Notes(reader.folder)
    for sample, good in thumbs.items():
        notes.thumb(visit, prompt_id, texts[sample], good)
    if places:
        notes.rank(visit, prompt_id, {texts[sample]: place for sample, place in places.items()})


def ratings_of_group(reader: Reader, group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{thumb, place} of every answer of a group as `Reader.group` gives it: what was said last of the same words,
    and their place in this very visit."""
    texts = [sample["text"] for sample in group["samples"]]
    return _said(reader, Visit(group["step"], group["kind"], group["mode"] or ""), group["prompt_id"], texts)


def waiting_groups(reader: Reader) -> dict[str, Any] | None:
    """What the run waits for, every answer with its text, length, thumb and place; None where it does not wait."""
    found = waiting(reader.folder)
    if found is None:
        return None
    groups: list[dict[str, Any]] = []
    for group in found["groups"]:
        said = _said(reader, Visit(found["step"]), group["prompt_id"], group["texts"])
        pairs = zip(group["texts"], group["lengths"], said, strict=True)
        samples = [
            {"index": index, "text": text, "length": length, **about}
            for index, (text, length, about) in enumerate(pairs)
        ]
        asked = {name: group[name] for name in ("k", "prompt_id", "question", "answer")}
        groups.append(asked | {"step": found["step"], "kind": "train", "mode": None, "samples": samples})
    return {"step": found["step"], "until": found["until"], "groups": groups}


def _said(reader: Reader, visit: Visit, prompt_id: str, texts: Sequence[str]) -> list[dict[str, Any]]:
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
    """Prompt id and texts of a recorded or a waiting group."""
    found = waiting(reader.folder)
    if found is not None and kind == "train" and found["step"] == step and k < len(found["groups"]):
        return found["groups"][k]["prompt_id"], found["groups"][k]["texts"]
    group = reader.group(step, k, kind, mode)
    return group["prompt_id"], [sample["text"] for sample in group["samples"]]
