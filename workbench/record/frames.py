"""Metrics and samples as pandas frames, for notebooks. Imported on demand only: the dashboard must not load pandas."""

import sqlite3
from collections.abc import Sequence

import pandas as pd

from workbench.core.types import EvalMode, GroupKind
from workbench.record.groups import SAMPLE, SAMPLE_COLUMNS
from workbench.record.series import metric_columns, numbers_column

_STEP = ["step", "kind", "mode", "attempt", "started", "seconds"]


def metrics(db: sqlite3.Connection, names: Sequence[str] | None, since: int) -> pd.DataFrame:
    """See `Reader.metrics`."""
    numbers, order = numbers_column(db, names)
    rows = db.execute(
        f"SELECT {', '.join(_STEP)}, {numbers} AS numbers FROM steps WHERE current AND step >= ? "
        "ORDER BY step, kind, mode",
        (since,),
    ).fetchall()
    frame = pd.DataFrame([tuple(row)[:-1] for row in rows], columns=_STEP)
    recorded = metric_columns(rows, order, names)
    return frame.join(pd.DataFrame(recorded, index=frame.index, columns=list(recorded), dtype="float64"))


def samples(
    db: sqlite3.Connection, low: int, high: int, kind: GroupKind, mode: EvalMode | None
) -> pd.DataFrame:
    """See `Reader.samples`."""
    chosen = "FROM samples s JOIN groups g ON g.id = s.group_id JOIN steps t ON t.id = s.step_id"
    where = "WHERE t.current AND t.kind = ? AND t.step BETWEEN ? AND ?" + (" AND t.mode = ?" if mode else "")
    arguments = (kind, low, high, *((mode,) if mode else ()))
    place = ["step", "mode", "k", "prompt_id", "question", "answer"]
    rows = db.execute(
        f"SELECT t.step, t.mode, g.group_index, g.prompt_id, p.question, p.answer, {SAMPLE} {chosen} "
        f"LEFT JOIN prompts p ON p.prompt_id = g.prompt_id {where} ORDER BY t.step, t.mode, s.sample_index",
        arguments,
    ).fetchall()
    parts = db.execute(
        f"SELECT r.sample_id, r.name, r.value {chosen} JOIN sample_rewards r ON r.sample_id = s.id {where}",
        arguments,
    ).fetchall()
    frame = pd.DataFrame([tuple(row) for row in rows], columns=[*place, *SAMPLE_COLUMNS]).drop(
        columns=["logs_json"]
    )
    frame["right"] = frame["right"].astype("boolean")
    long = pd.DataFrame([tuple(row) for row in parts], columns=["id", "name", "value"])
    wide = long.pivot(index="id", columns="name", values="value").astype("float64")
    return frame.join(wide.add_prefix("rewards/"), on="id")
