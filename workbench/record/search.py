"""Finds samples by text and by number: full-text index first, then an exact look at the hits; newest first, paged by id."""

import re
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from workbench.errors import RunError


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


def search(db: sqlite3.Connection, text: str, filters: Filters, after_id: int | None, limit: int) -> list[dict[str, Any]]:
    """The next `limit` hits below `after_id`: id, step, kind, mode, k, i, prompt_id, question, text, reward, right, advantage, length,
    finish_reason, style."""
    if not 1 <= limit <= 10_000:
        raise RunError(f"limit = {limit}: a page holds 1 to 10000 samples.")
    where, arguments = conditions(filters)
    if after_id is not None:
        where.append("s.id < ?")
        arguments.append(after_id)
    if text:
        condition, wanted = _text_condition(db, text)
        where.append(condition)
        arguments.extend(wanted)
    query = (
        "SELECT s.id, t.step, t.kind, t.mode, g.k, s.idx - (SELECT min(idx) FROM samples f WHERE f.step_id = s.step_id "
        "AND f.group_id = s.group_id) AS i, g.prompt_id, p.question, s.text, s.reward, s.right, s.advantage, s.length, s.finish_reason, "
        "s.style FROM samples s CROSS JOIN steps t ON t.id = s.step_id CROSS JOIN groups g ON g.id = s.group_id "
        f"LEFT JOIN prompts p ON p.prompt_id = g.prompt_id WHERE {' AND '.join(where)} ORDER BY s.id DESC LIMIT ?")
    rows = db.execute(query, (*arguments, limit)).fetchall()
    return [{**dict(row), "right": None if row["right"] is None else bool(row["right"])} for row in rows]


def conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    """The filters as SQL conditions on samples s, steps t, groups g."""
    where, arguments = ["t.current"], []
    ranges = [("t.kind = ?", filters.kind), ("t.step >= ?", filters.step_min), ("t.step <= ?", filters.step_max),
              ("s.reward >= ?", filters.reward_min), ("s.reward <= ?", filters.reward_max), ("s.length >= ?", filters.length_min),
              ("s.length <= ?", filters.length_max), ("s.finish_reason = ?", filters.finish_reason), ("s.style = ?", filters.style),
              ("g.prompt_id = ?", filters.prompt_id),
              ("s.right = ?", None if filters.right is None else int(filters.right)),
              ("EXISTS (SELECT 1 FROM sample_rewards r WHERE r.sample_id = s.id AND r.name = ? AND r.value IS NULL)", filters.failed_reward)]
    for condition, value in ranges:
        if value is not None:
            where.append(condition)
            arguments.append(value)
    signs = {"up": "s.advantage > 0", "down": "s.advantage < 0", "zero": "s.advantage = 0"}
    if filters.advantage is not None:
        where.append(signs[filters.advantage])
    if filters.disagree is not None:
        where.append("(SELECT r.value > 0 FROM sample_rewards r WHERE r.sample_id = s.id AND r.name = ?) <> "
                     "(SELECT r.value > 0 FROM sample_rewards r WHERE r.sample_id = s.id AND r.name = ?)")
        arguments.extend(filters.disagree)
    return where, arguments


def _text_condition(db: sqlite3.Connection, text: str) -> tuple[str, list[Any]]:
    """Samples whose answer or question holds `text`, case aside. The index knows words; the exact text is checked after it."""
    exact = "instr(lower(s.text), lower(?)) > 0"
    words = re.findall(r"\w+", text)
    asked = db.execute("SELECT prompt_id FROM prompts WHERE instr(lower(question), lower(?)) > 0 LIMIT 500", (text,)).fetchall()
    of_prompts = f"g.prompt_id IN ({','.join('?' * len(asked))})"
    prompts = [row[0] for row in asked]
    if not words:
        return f"({exact} OR {of_prompts})", [text, *prompts]
    phrase = '"' + " ".join(words) + '"' + (" *" if text[-1:].isalnum() else "")
    indexed = db.execute("SELECT coalesce(max(id), 0) FROM samples_fts_docsize").fetchone()[0]
    return (f"((s.id IN (SELECT rowid FROM samples_fts WHERE samples_fts MATCH ?) OR s.id > ?) AND {exact} OR {of_prompts})",
            [phrase, indexed, text, *prompts])
