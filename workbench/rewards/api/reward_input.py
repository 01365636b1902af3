"""One group as plain JSON values: what rewards are given their arguments from.

In: `Group`s with their rollouts, or plain rows (recorded samples, typed ones). Out: `RewardInput`s. Imported in every reward
process, so it must stay light.
"""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from workbench.core.errors import RewardError

_PIECE = re.compile(r"\w+|[^\w\s]|\s+")


class RewardInput(TypedDict):
    """All completions of one prompt; lists run in sample order."""

    id: str
    prompt: str
    rendered: str
    answer: str | None
    columns: dict[str, Any]
    completions: list[str]
    tokens: list[list[int]] | None
    lengths: list[int | None]
    finish_reasons: list[str]
    ratings: list[float | None]
    """A person's rating of each completion, 0 to 1; None where there is none."""


Ratings = Mapping[tuple[str, str], float]
"""People's ratings from 0 to 1, by (prompt id, text of the completion)."""


class Row(TypedDict):
    """One completion as a plain row. Every other key goes into `columns`."""

    completion: str
    prompt: NotRequired[str]
    answer: NotRequired[str | None]
    columns: NotRequired[Mapping[str, Any]]
    tokens: NotRequired[list[int]]
    length: NotRequired[int]
    finish_reason: NotRequired[str]
    rating: NotRequired[float | None]
    group: NotRequired[object]
    """Neighbours with the same value are one group; without it, those with the same prompt, `answer` and columns."""


def of_groups(groups: Iterable[Any], tokens: bool, ratings: Ratings | None = None) -> list[RewardInput]:
    """From `types.Group`s, in the same order; token ids only where `tokens`, they are most of the bytes."""
    rated = ratings or {}
    return [
        RewardInput(
            id=group.prompt.id,
            prompt=group.prompt.question,
            rendered=group.prompt.text,
            answer=group.prompt.answer,
            columns={
                str(name): plain(value)
                for name, value in {**group.prompt.own_names, **group.prompt.columns}.items()
            },
            completions=[rollout.text for rollout in group.rollouts],
            tokens=[rollout.token_ids.tolist() for rollout in group.rollouts] if tokens else None,
            lengths=[rollout.length for rollout in group.rollouts],
            finish_reasons=[rollout.finish_reason for rollout in group.rollouts],
            ratings=[rated.get((group.prompt.id, rollout.text)) for rollout in group.rollouts],
        )
        for group in groups
    ]


def of_rows(rows: Iterable[Mapping[str, Any]]) -> list[RewardInput]:
    """From plain rows (`Row`). Raises RewardError for a row without a completion."""
    groups: list[RewardInput] = []
    last: object = object()
    for number, row in enumerate(rows):
        if "completion" not in row:
            raise RewardError(
                f"row {number} has no `completion`. Give each row at least {{'completion': text}}."
            )
        extra = {name: plain(value) for name, value in row.items() if name not in Row.__annotations__}
        columns = {**{str(name): plain(value) for name, value in (row.get("columns") or {}).items()}, **extra}
        answer = row.get("answer")
        prompt = str(row.get("prompt", ""))
        key = (
            ("group", row["group"]) if "group" in row else (prompt, answer, sorted(columns.items(), key=str))
        )
        if key != last:
            last = key
            groups.append(
                RewardInput(
                    id=str(row.get("id", "")), prompt=prompt, rendered=str(row.get("rendered", "")),
                    answer=None if answer is None else str(answer), columns=columns,
                    completions=[], tokens=[], lengths=[], finish_reasons=[], ratings=[],
                )
            )  # fmt: skip
        group = groups[-1]
        group["completions"].append(text_of(row["completion"], number))
        tokens = row.get("tokens")
        if tokens is None or group["tokens"] is None:
            group["tokens"] = None
        else:
            group["tokens"].append([int(token) for token in tokens])
        length = row.get("length", len(tokens) if tokens is not None else None)
        group["lengths"].append(None if length is None else int(length))
        group["finish_reasons"].append(str(row.get("finish_reason", "stop")))
        group["ratings"].append(row.get("rating"))
    return groups


def text_of(completion: Any, number: int) -> str:
    """A completion as text: itself, or what the assistant's only message says. Raises RewardError for anything else."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list | tuple) and len(completion) == 1 and isinstance(completion[0], Mapping):
        content = completion[0].get("content")
        if isinstance(content, str):
            return content
    raise RewardError(
        f"row {number}: its `completion` is a {type(completion).__name__} and no text. Give text, or one message "
        "[{'role': 'assistant', 'content': text}]."
    )


def with_completions(group: RewardInput, completions: Sequence[str]) -> RewardInput:
    """The same prompt with other completions. Their tokens are words and punctuation, since a tokenizer would need the model."""
    tokens = [
        [zlib.crc32(piece.encode("utf-8", "replace")) for piece in _PIECE.findall(text)]
        for text in completions
    ]
    return {
        **group,
        "completions": list(completions),
        "tokens": tokens,
        "lengths": [len(item) for item in tokens],
        "finish_reasons": ["stop"] * len(completions),
        "ratings": [None] * len(completions),
    }


def plain(value: Any) -> Any:
    """A value as JSON: arrays become lists, numpy scalars plain numbers, anything else its text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
