"""The tables of run.db, their versions, and how a connection is opened for writing or for reading.

A writer migrates an older file first; a reader never writes, and sees an older file through temporary views with
today's column names. The metrics of a step are one JSON array in its row, in the order of `metric_names`
(docs/decisions); the view `metrics` lists them one a row. Rows of an attempt that a resume has replaced stay,
with `current` = 0.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from workbench.core.errors import RunError

Migration = str | Callable[[sqlite3.Connection], None]

_FIRST = """
CREATE TABLE steps (
  id INTEGER PRIMARY KEY AUTOINCREMENT, -- ids only grow: a reader's cursor is the last one it saw
  step INTEGER NOT NULL, kind TEXT NOT NULL, mode TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL,
  started REAL NOT NULL, seconds REAL NOT NULL,
  current INTEGER NOT NULL DEFAULT 1, tokens INTEGER NOT NULL DEFAULT 0,
  metrics_json TEXT NOT NULL, phases_json TEXT NOT NULL, cells_json TEXT NOT NULL);
CREATE UNIQUE INDEX steps_current ON steps (kind, mode, step) WHERE current;
CREATE TABLE metric_names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE); -- place id - 1 in metrics_json
CREATE TABLE attempts (
  attempt INTEGER PRIMARY KEY, from_step INTEGER NOT NULL, row INTEGER NOT NULL, time REAL NOT NULL);
CREATE TABLE prompts (
  prompt_id TEXT PRIMARY KEY, question TEXT NOT NULL, text TEXT NOT NULL, answer TEXT,
  columns_json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE groups (
  id INTEGER PRIMARY KEY, step_id INTEGER NOT NULL REFERENCES steps, k INTEGER NOT NULL,
  prompt_id TEXT NOT NULL, n INTEGER NOT NULL, scored INTEGER NOT NULL, right INTEGER,
  reward_mean REAL, reward_std REAL, gradient_share REAL, dead TEXT NOT NULL);
CREATE UNIQUE INDEX groups_step ON groups (step_id, k);
CREATE INDEX groups_prompt ON groups (prompt_id, step_id);
CREATE TABLE samples (
  id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL REFERENCES groups,
  step_id INTEGER NOT NULL REFERENCES steps, idx INTEGER NOT NULL,
  length INTEGER NOT NULL, finish_reason TEXT NOT NULL, reward REAL, right INTEGER, advantage REAL,
  logprob_sum REAL, kl REAL, kl_sum REAL, entropy REAL, gradient_share REAL, delta_logp REAL,
  seed INTEGER, weights_version INTEGER, style TEXT, logs_json TEXT, text TEXT NOT NULL);
CREATE UNIQUE INDEX samples_step ON samples (step_id, idx);
CREATE INDEX samples_reward ON samples (reward, length);
CREATE TABLE sample_rewards (
  sample_id INTEGER NOT NULL REFERENCES samples, name TEXT NOT NULL, value REAL, reason TEXT,
  PRIMARY KEY (sample_id, name)) WITHOUT ROWID;
CREATE TABLE token_texts (id INTEGER PRIMARY KEY, text BLOB NOT NULL);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, step INTEGER, kind TEXT NOT NULL,
  data_json TEXT NOT NULL);
CREATE INDEX events_kind ON events (kind, id);
CREATE TABLE alarms (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, level TEXT NOT NULL, time REAL NOT NULL,
  since_step INTEGER NOT NULL, last_step INTEGER NOT NULL, cleared_step INTEGER,
  claim TEXT NOT NULL, text TEXT NOT NULL, evidence_json TEXT NOT NULL, remedies_json TEXT NOT NULL);
CREATE UNIQUE INDEX alarms_open ON alarms (name) WHERE cleared_step IS NULL;
CREATE VIRTUAL TABLE samples_fts USING fts5 (
  text, content = 'samples', content_rowid = 'id', tokenize = 'unicode61');
CREATE VIRTUAL TABLE prompts_fts USING fts5 (prompt_id UNINDEXED, question);
CREATE VIEW metrics AS
  SELECT s.step, s.kind, s.mode, s.attempt, n.name, m.value
  FROM steps s, json_each(s.metrics_json) m JOIN metric_names n ON n.id = m.key + 1
  WHERE s.current AND m.value IS NOT NULL;
"""

_SECOND = """
DROP VIEW metrics;
CREATE TABLE steps_2 (
  id INTEGER PRIMARY KEY AUTOINCREMENT, -- ids only grow: a reader's cursor is the last one it saw
  stage TEXT NOT NULL DEFAULT 'grpo', -- other stages (sft) have steps without groups and samples
  step INTEGER NOT NULL, kind TEXT NOT NULL, mode TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL,
  started REAL, seconds REAL,
  current INTEGER NOT NULL DEFAULT 1, tokens_kept INTEGER NOT NULL DEFAULT 0,
  metrics_json TEXT NOT NULL, phases_json TEXT NOT NULL, group_summary_json TEXT);
INSERT INTO steps_2
  SELECT id, 'grpo', step, kind, mode, attempt, started, seconds, current, tokens, metrics_json, phases_json, cells_json
  FROM steps;
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'steps') WHERE name = 'steps_2';
DROP TABLE steps;
ALTER TABLE steps_2 RENAME TO steps;
CREATE UNIQUE INDEX steps_current ON steps (kind, mode, step) WHERE current;
CREATE VIEW metrics AS
  SELECT s.step, s.kind, s.mode, s.attempt, n.name, m.value
  FROM steps s, json_each(s.metrics_json) m JOIN metric_names n ON n.id = m.key + 1
  WHERE s.current AND m.value IS NOT NULL;
ALTER TABLE attempts RENAME COLUMN row TO last_step_id;
ALTER TABLE prompts RENAME COLUMN text TO prompt;
ALTER TABLE groups RENAME COLUMN k TO group_index;
ALTER TABLE groups RENAME COLUMN n TO size;
ALTER TABLE groups RENAME COLUMN scored TO scored_count;
ALTER TABLE groups RENAME COLUMN right TO correct_count;
ALTER TABLE groups RENAME COLUMN dead TO zero_std;
ALTER TABLE samples RENAME COLUMN idx TO sample_index;
ALTER TABLE samples RENAME COLUMN right TO correct;
ALTER TABLE samples RENAME COLUMN kl_sum TO kl_k1_sum;
ALTER TABLE samples RENAME COLUMN delta_logp TO logprob_change;
ALTER TABLE samples RENAME COLUMN weights_version TO policy_version;
DROP TABLE samples_fts;
ALTER TABLE samples RENAME COLUMN text TO completion;
CREATE VIRTUAL TABLE samples_fts USING fts5 (
  completion, content = 'samples', content_rowid = 'id', tokenize = 'unicode61');
INSERT INTO samples_fts (samples_fts) VALUES ('rebuild');
"""

MIGRATIONS: Sequence[Migration] = (_FIRST, _SECOND)
"""Entry n leads from version n to n + 1. Never edit one that was released: append, and give the version it leads from its VIEWS."""

VIEWS: Mapping[int, str] = {
    1: """
CREATE TEMP VIEW steps AS
  SELECT *, 'grpo' AS stage, tokens AS tokens_kept, cells_json AS group_summary_json FROM main.steps;
CREATE TEMP VIEW attempts AS SELECT *, row AS last_step_id FROM main.attempts;
CREATE TEMP VIEW prompts AS SELECT *, text AS prompt FROM main.prompts;
CREATE TEMP VIEW groups AS
  SELECT *, k AS group_index, n AS size, scored AS scored_count, right AS correct_count, dead AS zero_std FROM main.groups;
CREATE TEMP VIEW samples AS
  SELECT *, idx AS sample_index, right AS correct, kl_sum AS kl_k1_sum, delta_logp AS logprob_change,
    weights_version AS policy_version, text AS completion FROM main.samples;
"""
}
"""What a reader of an older version creates in its own connection to find today's names; the file is not written."""


def version(connection: sqlite3.Connection) -> int:
    """The schema version of a database; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def open_writer(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sqlite3.Connection:
    """The one connection that writes: WAL, migrated to the newest version (an older file is copied first).

    Transactions are explicit; any thread may use it. Raises RunError for a file that is newer than this program or
    no database."""
    try:
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise RunError(
            f"{path} cannot be opened for writing: {error}. Is the run folder complete and yours?"
        ) from error
    try:
        _refuse_newer(connection, path, len(migrations))
        connection.execute("PRAGMA journal_mode = WAL")
        # One fsync a step: a checkpoint must never outlive the steps before it (a power cut takes what was not synced).
        connection.execute("PRAGMA synchronous = FULL")
        # References are written in order by one function: checked by tests, not for every row.
        connection.execute("PRAGMA foreign_keys = OFF")
        migrate(connection, path, migrations)
        path.chmod(0o600)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise RunError(
            f"{path} cannot be written: {error}. Copy the run folder again, or start the run anew."
        ) from error
    except RunError:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Migrates a database to the newest version in one transaction; the old file is kept as `<name>.v<version>`."""
    found = version(connection)
    if found == len(migrations):
        return
    if found:
        backup = path.with_name(f"{path.name}.v{found}")
        if not backup.exists():
            connection.execute("VACUUM INTO ?", (str(backup),))
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[version(connection) :]:
            if callable(migration):
                migration(connection)
            else:
                for statement in statements(migration):
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _refuse_newer(connection: sqlite3.Connection, path: Path, known: int) -> None:
    """Called before anything is written: the journal mode is stored in the file too."""
    if (found := version(connection)) > known:
        raise RunError(
            f"{path} was written by a newer version of the workbench (format {found}, this one knows "
            f"{known}). It can be read, not continued: update the workbench to resume this run."
        )


def statements(script: str) -> list[str]:
    """The statements of a script (`executescript` would commit in between)."""
    found, current = [], ""
    for part in script.split(";")[:-1]:
        current += part + ";"
        if sqlite3.complete_statement(current):  # not inside a string or trigger
            found.append(current.strip())
            current = ""
    return found


def open_reader(path: Path, views: Mapping[int, str] = VIEWS) -> sqlite3.Connection:
    """A connection that can only read. An older file gets the `views` of its version; a file on a medium where
    nothing may be written opens too (`immutable`)."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(
        f"{uri}?mode=ro", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )
    try:
        found = version(connection)
    except sqlite3.OperationalError:
        # WAL needs a shared-memory file beside the database. Where none can be created, no writer is running.
        connection.close()
        connection = sqlite3.connect(
            f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
        found = version(connection)
    if found in views:
        connection.execute("PRAGMA temp_store = MEMORY")  # no folder for temporary files is needed
        for statement in statements(views[found]):
            connection.execute(statement)
    connection.row_factory = sqlite3.Row
    return connection
