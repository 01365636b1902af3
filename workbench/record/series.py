"""What charts draw: metrics as columns, group summaries, marks; only rows after a cursor.

In: a connection of the reader. Out: plain dicts and lists. A cursor is the id of the last row of `steps` that the
client has seen.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any

from pydantic_core import from_json

Json = dict[str, Any]
Column = list[float | None]
Keep = Callable[[list[int], Column | None], list[int]]
"""From the steps and their mean rewards: indices of the steps that are shown."""
_SEEN = "SELECT id, step, kind, mode, {} AS numbers FROM steps WHERE current"
_TABLES = (("train", "train", ""), ("sampled", "eval", "sampled"), ("greedy", "eval", "greedy"))


def series(
    db: sqlite3.Connection,
    since: int,
    names: Sequence[str] | None,
    limit: int | None,
    keep: Keep | None = None,
    checked: Sequence[str] | None = None,
) -> Json:
    """See `Reader.series`."""
    numbers, order = numbers_column(db, names)
    orders = {"train": order, "eval": order}
    if checked is not None:
        of_checks, orders["eval"] = numbers_column(db, checked)
        numbers = f"CASE kind WHEN 'eval' THEN {of_checks} ELSE {numbers} END"
    query, only, count = f"{_SEEN.format(numbers)} AND id > ?", "", None
    if keep is not None:
        count, only = _kept(db, since, keep)
    rows = db.execute(
        f"{query}{only} ORDER BY id LIMIT ?", (since, -1 if limit is None else limit)
    ).fetchall()
    more = limit is not None and len(rows) == limit
    seen = {"cursor": _cursor(db, rows, since, more), "forget_from": forget_from(db, since)}
    tables = {
        title: _table(
            rows, kind, mode, orders[kind], names if kind == "train" or checked is None else checked
        )
        for title, kind, mode in _TABLES
    }
    return {**seen, **tables, **({} if count is None else {"count": count})}


def _kept(db: sqlite3.Connection, since: int, keep: Keep) -> tuple[int, str]:
    """The number of new training steps, and the condition that leaves out those that `keep` does not choose, so that
    their JSON is not parsed."""
    numbers, _ = numbers_column(db, ["reward"])
    train = "AND kind = 'train' AND id > ? ORDER BY id"
    [(count,)] = db.execute(
        "SELECT count(*) FROM steps WHERE current AND kind = 'train' AND id > ?", (since,)
    )
    if count <= len(keep([0] * count, None)):  # few enough
        return count, ""
    rows = db.execute(f"{_SEEN.format(numbers)} {train}", (since,)).fetchall()
    table = _parsed(row["numbers"] for row in rows)
    chosen = keep([row["step"] for row in rows], [row[0] if row else None for row in table])
    ids = ",".join(str(rows[place]["id"]) for place in chosen)
    newest = rows[-1]["id"]
    return count, f" AND (kind <> 'train' OR id IN ({ids}) OR id > {newest})"


def ends(db: sqlite3.Connection, names: Sequence[str] | None, head: int, tail: int) -> Json:
    """See `Reader.ends`."""
    numbers, order = numbers_column(db, names)
    count = 0
    chosen: dict[int, sqlite3.Row] = {}
    for title, kind, mode in _TABLES:
        query = f"{_SEEN.format(numbers)} AND kind = ? AND mode = ? ORDER BY step {{}} LIMIT ?"
        first = db.execute(query.format("ASC"), (kind, mode, head)).fetchall()
        last = db.execute(query.format("DESC"), (kind, mode, tail)).fetchall()
        chosen |= {row["id"]: row for row in [*first, *last]}
        if title == "train" and first:
            count = last[0]["step"] - first[0]["step"] + 1
    rows = sorted(chosen.values(), key=lambda row: (row["step"], row["id"]))
    tables = {title: _table(rows, kind, mode, order, names) for title, kind, mode in _TABLES}
    return {"steps": count, **tables}


def ribbon(db: sqlite3.Connection, since: int) -> Json:
    """See `Reader.ribbon`."""
    query = "SELECT id, step, kind, group_summary_json FROM steps WHERE id > ? AND current ORDER BY id"
    rows = db.execute(query, (since,)).fetchall()
    mine = [row for row in rows if row["kind"] == "train" and row["group_summary_json"] is not None]
    cells = _parsed(row["group_summary_json"] for row in mine)
    steps = [cell | {"step": row["step"]} for row, cell in zip(mine, cells, strict=True)]
    seen = {"cursor": _cursor(db, rows, since), "forget_from": forget_from(db, since)}
    return {**seen, "steps": steps, "marks": marks(db)}


def marks(db: sqlite3.Connection) -> list[Json]:
    """Evaluations, alarms and changed settings, by step."""
    checks = db.execute("SELECT DISTINCT step FROM steps WHERE current AND kind = 'eval'")
    found: list[Json] = [{"step": row["step"], "kind": "check", "text": "held-out check"} for row in checks]
    for row in db.execute("SELECT since_step, claim, level FROM alarms ORDER BY id"):
        alarm = {"step": row["since_step"], "kind": "alarm", "text": row["claim"], "level": row["level"]}
        found.append(alarm)
    query = (
        "SELECT step, data_json FROM events WHERE kind = 'setting_changed' AND step IS NOT NULL ORDER BY id"
    )
    for row in db.execute(query):
        changes = json.loads(row["data_json"]).items()
        text = ", ".join(f"{name} {change['from']} → {change['to']}" for name, change in changes)
        found.append({"step": row["step"], "kind": "setting", "text": text})
    return sorted(found, key=lambda mark: int(mark["step"]))


def numbers_column(db: sqlite3.Connection, names: Sequence[str] | None) -> tuple[str, list[str]]:
    """SQL for metrics of a row of `steps` as a JSON array, and their names in that order. With `names` SQLite extracts
    them: parsing all ninety metrics of a step here takes three times as long."""
    known = [row[0] for row in db.execute("SELECT name FROM metric_names ORDER BY id")]
    if names is None:
        return "metrics_json", known
    place = {name: i for i, name in enumerate(known)}
    order = [name for name in names if name in place]
    # A single path would give a number instead of an array, hence one more that never exists.
    paths = ", ".join(f"'$[{place[name]}]'" for name in order)
    return (f"json_extract(metrics_json, {paths}, '$.none')", order) if order else ("'[]'", [])


def metric_columns(
    rows: Sequence[sqlite3.Row], order: Sequence[str], names: Sequence[str] | None
) -> dict[str, Column]:
    """Columns by metric name, None where a row has none. `names` None: all that occur."""
    table = _parsed(row["numbers"] for row in rows)
    found = dict(zip(order, map(list, zip_longest(*table)), strict=False))
    if names is None:
        return {
            name: column
            for name, column in sorted(found.items())
            if any(value is not None for value in column)
        }
    return {name: found.get(name, [None] * len(rows)) for name in names}


def forget_from(db: sqlite3.Connection, since: int) -> int | None:
    """The first step that a client which has seen row `since` must drop, because a resume has replaced it."""
    query = "SELECT min(from_step) FROM attempts WHERE attempt > 1 AND last_step_id >= ?"
    found = db.execute(query, (since,)).fetchone()[0] if since else None
    return None if found is None else int(found)


def _table(
    rows: list[sqlite3.Row], kind: str, mode: str, order: Sequence[str], names: Sequence[str] | None
) -> Json:
    mine = [row for row in rows if row["kind"] == kind and row["mode"] == mode]
    return {"step": [row["step"] for row in mine], **metric_columns(mine, order, names)}


def _parsed(texts: Iterable[str]) -> list[Any]:
    """Many short JSON texts at once; pydantic's parser takes a fifth of the standard library's time."""
    found: list[Any] = from_json(f"[{','.join(texts)}]")
    return found


def _cursor(db: sqlite3.Connection, rows: Sequence[sqlite3.Row], since: int, more: bool = False) -> int:
    """The last row seen; once all are seen, at least the id that `store.start_attempt` left unused."""
    seen = max(rows[-1]["id"] if rows else 0, since)
    if more:
        return seen
    unused = db.execute(
        "SELECT coalesce(max(last_step_id) + 1, 0) FROM attempts WHERE attempt > 1"
    ).fetchone()[0]
    return max(seen, int(unused))
