"""Finds samples by text and by number: full-text index first, then an exact look at the hits; newest first,
paged by id."""

import re
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from workbench.errors import RunError

INDEXED = "(SELECT coalesce(max(id), 0) FROM samples_fts_docsize)"
_FIRST = "(SELECT min(idx) FROM samples f WHERE f.step_id = s.step_id AND f.group_id = s.group_id)"
_VALUE = "SELECT {} FROM sample_rewards r WHERE r.sample_id = s.id AND r.name = ?"
_ASKED = (
    "s.id IN (SELECT o.id FROM groups v JOIN samples o ON o.step_id = v.step_id AND o.group_id = v.id "
    "WHERE v.prompt_id IN ({}))"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a sample must be. Ranges include both ends; None asks for nothing."""

    kind: Literal["train", "eval"] | None = None
    step_min: int | None = None
    step_max: int | None = None
    reward_min: float | None = None
    reward_max: float | None = None
    length_min: int | None = None
    length_max: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    advantage: Literal["up", "down", "zero"] | None = None
    right: bool | None = None
    style: str | None = None
    prompt_id: str | None = None
    failed_reward: str | None = None
    """Name of a reward that gave no value for the sample."""
    disagree: tuple[str, str] | None = None
    """Two reward names of which one is above 0 and the other is not."""


def search(
    db: sqlite3.Connection, text: str, filters: Filters, after_id: int | None, limit: int
) -> list[dict[str, Any]]:
    """The next `limit` hits below `after_id`, newest first: id, step, kind, mode, k, i, prompt_id, question,
    text, reward, right, advantage, length, finish_reason, style."""
    if not 1 <= limit <= 10_000:
        raise RunError(f"limit = {limit}: a page holds 1 to 10000 samples.")
    found: dict[int, dict[str, Any]] = {}
    for source in _sources(db, text) if text else [Source("samples s", "1", (), "s.id")]:
        for row in _page(db, source, filters, after_id, limit):
            found[row["id"]] = {**dict(row), "right": None if row["right"] is None else bool(row["right"])}
    return [found[key] for key in sorted(found, reverse=True)[:limit]]


class Source(NamedTuple):
    """Where hits come from, in an order that can be walked from the newest on."""

    tables: str
    where: str
    arguments: tuple[Any, ...]
    id: str


def _sources(db: sqlite3.Connection, text: str) -> list[Source]:
    """Answers that hold `text` (case aside), and answers to questions that do. The index knows words; the
    exact text is checked after it. The newest few samples, which it does not know yet, are looked through."""
    holds = "instr(lower({}), lower(?)) > 0"
    if not re.search(r"\w", text):
        asked = db.execute(
            f"SELECT prompt_id FROM prompts WHERE {holds.format('question')} LIMIT 500", (text,)
        )
        return [Source("samples s", holds.format("s.text"), (text,), "s.id"), *_of_prompts(asked)]
    phrase = '"' + " ".join(re.findall(r"\w+", text)) + '"' + (" *" if text[-1].isalnum() else "")
    known = f"prompts_fts MATCH ? AND {holds.format('question')}"
    asked = db.execute(f"SELECT prompt_id FROM prompts_fts WHERE {known} LIMIT 500", (phrase, text))
    return [
        Source("samples s", f"s.id > {INDEXED} AND {holds.format('s.text')}", (text,), "s.id"),
        Source(
            "samples_fts CROSS JOIN samples s ON s.id = samples_fts.rowid",
            f"samples_fts MATCH ? AND {holds.format('s.text')}",
            (phrase, text),
            "samples_fts.rowid",
        ),
        *_of_prompts(asked),
    ]


def _of_prompts(rows: sqlite3.Cursor) -> list[Source]:
    names = [row[0] for row in rows]
    marks = ", ".join("?" * len(names))
    return [Source("samples s", _ASKED.format(marks), tuple(names), "s.id")] if names else []


def _page(
    db: sqlite3.Connection, source: Source, filters: Filters, after_id: int | None, limit: int
) -> list[sqlite3.Row]:
    where, arguments = conditions(filters)
    if after_id is not None:
        where.append(f"{source.id} < ?")
        arguments.append(after_id)
    # CROSS JOIN keeps sqlite to this order: walk the samples from the newest, look the rest up, stop early.
    query = (
        f"SELECT s.id, t.step, t.kind, t.mode, g.k, s.idx - {_FIRST} AS i, g.prompt_id, p.question, s.text, "
        "s.reward, s.right, s.advantage, s.length, s.finish_reason, s.style "
        f"FROM {source.tables} CROSS JOIN steps t ON t.id = s.step_id "
        "CROSS JOIN groups g ON g.id = s.group_id LEFT JOIN prompts p ON p.prompt_id = g.prompt_id "
        f"WHERE {source.where} AND {' AND '.join(where)} ORDER BY {source.id} DESC LIMIT ?"
    )
    return db.execute(query, (*source.arguments, *arguments, limit)).fetchall()


def conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    """The filters as SQL conditions on samples s, steps t, groups g."""
    where, arguments = ["t.current"], []
    ranges = [
        ("t.kind = ?", filters.kind),
        ("t.step >= ?", filters.step_min),
        ("t.step <= ?", filters.step_max),
        ("s.reward >= ?", filters.reward_min),
        ("s.reward <= ?", filters.reward_max),
        ("s.length >= ?", filters.length_min),
        ("s.length <= ?", filters.length_max),
        ("s.finish_reason = ?", filters.finish_reason),
        ("s.style = ?", filters.style),
        (_ASKED.format("?"), filters.prompt_id),
        ("s.right = ?", None if filters.right is None else int(filters.right)),
        (f"EXISTS ({_VALUE.format('1')} AND r.value IS NULL)", filters.failed_reward),
    ]
    for condition, value in ranges:
        if value is not None:
            where.append(condition)
            arguments.append(value)
    signs = {"up": "s.advantage > 0", "down": "s.advantage < 0", "zero": "s.advantage = 0"}
    if filters.advantage is not None:
        where.append(signs[filters.advantage])
    if filters.disagree is not None:
        where.append(f"({_VALUE.format('r.value > 0')}) <> ({_VALUE.format('r.value > 0')})")
        arguments.extend(filters.disagree)
    return where, arguments
