"""The SQL that writes run.db: one function a kind of row, each inside its caller's transaction."""

import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from workbench.record.rows import Row, Rows, dumps
from workbench.record.search import INDEXED

INDEX_BATCH = 2000
_STEP = "stage, step, kind, mode, attempt, started, seconds, tokens_kept, metrics_json, phases_json, group_summary_json"
_GROUP = (
    "id, step_id, group_index, prompt_id, size, scored_count, correct_count, reward_mean, reward_std, "
    "gradient_share, zero_std"
)
_SAMPLE = (
    "id, group_id, step_id, sample_index, length, finish_reason, reward, correct, advantage, logprob_sum, kl, "
    "kl_k1_sum, entropy, gradient_share, logprob_change, seed, policy_version, style, logs_json, completion"
)
_ALARM = "name, level, time, since_step, last_step, claim, text, evidence_json, remedies_json"
_UPDATED = "level, last_step, claim, text, evidence_json, remedies_json"


def in_transaction(db: sqlite3.Connection, work: Callable[[], object]) -> None:
    """Commits all of `work`. On an error the transaction stays open for the caller to roll back."""
    db.execute("BEGIN IMMEDIATE")
    work()
    db.execute("COMMIT")


def current_attempt(db: sqlite3.Connection) -> int:
    """Number of the newest attempt; a new database gets attempt 1."""
    attempt = db.execute("SELECT max(attempt) FROM attempts").fetchone()[0]
    if attempt is None:
        db.execute("INSERT INTO attempts VALUES (1, 0, 0, ?)", (time.time(),))
        return 1
    return int(attempt)


def start_attempt(db: sqlite3.Connection, after_step: int, attempt: int) -> None:
    """Starts a new attempt after `after_step` finished steps: later rows get `current` = 0, none is deleted."""
    last = db.execute("SELECT coalesce(max(id), 0) FROM steps").fetchone()[0]
    db.execute("INSERT INTO attempts VALUES (?, ?, ?, ?)", (attempt, after_step, last, time.time()))
    # One id stays unused: the cursor of readers that already know of this attempt.
    db.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'steps'")
    db.execute("UPDATE steps SET current = 0 WHERE current AND kind = 'train' AND step >= ?", (after_step,))
    db.execute("UPDATE steps SET current = 0 WHERE current AND kind = 'eval' AND step > ?", (after_step,))
    db.execute(
        "UPDATE alarms SET cleared_step = ? WHERE cleared_step IS NULL AND since_step >= ?",
        (after_step, after_step),
    )


class Known(NamedTuple):
    """What the database holds already, so that it is neither written again nor looked up."""

    prompts: set[str]
    tokens: set[int]
    metrics: dict[str, int]
    """Index of each metric in `metrics_json`."""

    def add(self, rows: Rows) -> None:
        """Called once the step is committed."""
        self.prompts.update(row[0] for row in rows.prompts)
        _assign(self.metrics, rows.metrics)


def known(db: sqlite3.Connection) -> Known:
    """Read from a database."""
    prompts = {row[0] for row in db.execute("SELECT prompt_id FROM prompts")}
    tokens = {row[0] for row in db.execute("SELECT id FROM token_texts")}
    return Known(
        prompts,
        tokens,
        {row[1]: row[0] - 1 for row in db.execute("SELECT id, name FROM metric_names ORDER BY id")},
    )


def insert_step(db: sqlite3.Connection, rows: Rows, known: Known, *, tokens_kept: bool) -> None:
    """One step with its groups, samples and rewards; a repeated step replaces the earlier one."""
    db.execute(
        "UPDATE steps SET current = 0 WHERE current AND step = ? AND kind = ? AND mode = ?", rows.step[1:4]
    )
    indices = _assign(dict(known.metrics), rows.metrics)
    new_names = [(index + 1, name) for name, index in indices.items() if name not in known.metrics]
    db.executemany("INSERT INTO metric_names VALUES (?, ?)", new_names)
    step = (
        *rows.step,
        int(tokens_kept),
        dumps([rows.metrics.get(name) for name in indices]),
        *rows.step_json,
    )
    step_id = db.execute(_insert("steps", _STEP), step).lastrowid
    group_id, sample_id = _next_id(db, "groups"), _next_id(db, "samples")
    prompts = [row for row in rows.prompts if row[0] not in known.prompts]
    new = {row[0]: row for row in prompts}.values()
    db.executemany("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?)", new)
    db.executemany("INSERT INTO prompts_fts VALUES (?, ?)", [row[:2] for row in new])
    groups = [(group_id + k, step_id, k, *row) for k, row in enumerate(rows.groups)]
    db.executemany(_insert("groups", _GROUP), groups)
    samples = [(sample_id + i, group_id + k, step_id, i, *row) for i, (k, row) in enumerate(rows.samples)]
    db.executemany(_insert("samples", _SAMPLE), samples)
    rewards = [(sample_id + i, *row) for i, row in rows.rewards]
    db.executemany("INSERT INTO sample_rewards VALUES (?, ?, ?, ?)", rewards)


def insert_event(db: sqlite3.Connection, row: Row) -> None:
    """(time, step, kind, data)."""
    db.execute(_insert("events", "time, step, kind, data_json"), row)


def raise_alarm(db: sqlite3.Connection, row: Row) -> None:
    """(name, level, time, since_step, last_step, claim, text, evidence, remedies): inserts an alarm, or updates the
    open one of that name."""
    updated = ", ".join(f"{name} = excluded.{name}" for name in _UPDATED.split(", "))
    conflict = f"ON CONFLICT (name) WHERE cleared_step IS NULL DO UPDATE SET {updated}"
    db.execute(f"{_insert('alarms', _ALARM)} {conflict}", row)


def clear_alarm(db: sqlite3.Connection, name: str, step: int) -> None:
    """Ends the open alarm of that name."""
    db.execute("UPDATE alarms SET cleared_step = ? WHERE name = ? AND cleared_step IS NULL", (step, name))


def insert_token_texts(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """(token id, bytes)."""
    db.executemany("INSERT OR REPLACE INTO token_texts VALUES (?, ?)", rows)


def unindexed(db: sqlite3.Connection) -> int:
    """Number of samples that are not in the full-text index yet."""
    newest = db.execute("SELECT coalesce(max(id), 0) FROM samples").fetchone()[0]
    return int(newest) - _indexed(db)


def index_samples(db: sqlite3.Connection) -> None:
    """Adds the next `INDEX_BATCH` samples to the full-text index."""
    query = "SELECT id, completion FROM samples WHERE id > ? ORDER BY id LIMIT ?"
    rows = db.execute(query, (_indexed(db), INDEX_BATCH)).fetchall()
    db.executemany("INSERT INTO samples_fts (rowid, completion) VALUES (?, ?)", rows)


def _assign(indices: dict[str, int], names: Iterable[str]) -> dict[str, int]:
    """Gives new names the next indices; the dict stays in their order."""
    for name in names:
        indices.setdefault(name, len(indices))
    return indices


def _indexed(db: sqlite3.Connection) -> int:
    return int(db.execute(f"SELECT {INDEXED}").fetchone()[0])


def _next_id(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])


def _insert(table: str, columns: str) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(', ')))})"
