"""Writes the record of a run: one bounded queue, one thread, one transaction a step.

The loop hands over a `StepRecord` and goes on. Token arrays may be dropped under pressure (counted); rows never are: a full
queue makes the loop wait, a full disk keeps everything in memory and is raised at the loop's next call.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from workbench.config import RunConfig
from workbench.errors import RunError
from workbench.record import rollup, schema, tokens
from workbench.record.folder import RunFolder, make_folder
from workbench.record.rows import Rows, clean, dumps, event_row, step_rows
from workbench.types import StepRecord

Write = Callable[[sqlite3.Connection], None]
_INDEX_BATCH = 2000
_IDLE_SECONDS = 1.0
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class Job(NamedTuple):
    """One thing to write, and the bytes of token arrays that wait with it."""

    write: Write
    token_bytes: int = 0


class Writer:
    """The only writer of a run's run.db and tokens/. Use as a context manager, or call `close`.

    `token_text(id)` gives one token's text (bytes where a token may hold part of a character); with it the reader can show
    tokens without a tokenizer. `supersede` must be called before the first step of a resumed run.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig | None = None,
        *,
        token_text: Callable[[int], str | bytes] | None = None,
        max_pending: int = 64,
        max_token_bytes: int = 2**28,
    ) -> None:
        """Opens (or makes) run.db. Raises RunError: newer format, damaged, not writable."""
        self.folder = folder
        self.config = config or folder.config()
        self._token_text = token_text
        self._max_pending = max_pending
        self._max_token_bytes = max_token_bytes
        make_folder(folder.tokens)
        self._db = schema.open_writer(folder.db_path)
        self.attempt = _begin(self._db)
        self._known_tokens = {row[0] for row in self._db.execute("SELECT id FROM token_texts")}
        self._known_prompts = {row[0] for row in self._db.execute("SELECT prompt_id FROM prompts")}
        self._jobs: deque[Job] = deque()
        self._token_bytes = 0
        self._unindexed = _unindexed(self._db)
        self._error: RunError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="record-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def step(self, record: StepRecord) -> None:
        """Records one step or evaluation. Returns at once unless the queue is full. The record is kept even where an
        earlier failure is raised here (RunError): `retry` after making room, and nothing is lost."""
        started = time.time() - (record.metrics.get("step_time") or sum(record.phases.values()))
        self._learn_tokens(record)
        numbers = None
        size = tokens.size(record.tokens) if record.tokens else 0
        if self._token_bytes + size > self._max_token_bytes:
            # Too much waits already: keep what the rows need, let the arrays go.
            numbers = rollup.sample_numbers(record, rollup.accuracy_reward(self.config, record.scores_B))
            size = 0

        def write(db: sqlite3.Connection) -> None:
            rows = step_rows(record, self.config, started, self.attempt, numbers)
            wanted = record.tokens is not None
            with self._changed:
                pressed = numbers is not None or len(self._jobs) > self._max_pending // 2
            kept = wanted and not pressed and self._save_tokens(record)
            self._insert(db, rows, kept, dropped=wanted and not kept)

        self._enqueue(write, size)

    def event(self, kind: str, data: Mapping[str, Any] | None = None, step: int | None = None) -> None:
        """Records that something happened: a command and its answer, a setting changed, a checkpoint, an end."""
        row = event_row(kind, data, step)
        self._enqueue(lambda db: _in_transaction(db, lambda: db.execute(_INSERT_EVENT, row)))

    def alarm(
        self,
        name: str,
        level: str,
        step: int,
        claim: str,
        text: str = "",
        evidence: Mapping[str, Any] | None = None,
        remedies: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Raises an alarm, or renews the open one of that name. `level` is `info`, `warning` or `critical`; a remedy is
        {"label", "command", "args"} or {"label", "fork": settings}; evidence names figures and sample ids."""
        row = (name, level, time.time(), step, step, clean(claim), clean(text), dumps(evidence or {}), dumps(list(remedies)))
        self._enqueue(lambda db: _in_transaction(db, lambda: db.execute(_INSERT_ALARM, row)))

    def clear_alarm(self, name: str, step: int) -> None:
        """Ends the open alarm of that name, if there is one."""
        self._enqueue(lambda db: _in_transaction(db, lambda: db.execute(
            "UPDATE alarms SET cleared_step = ? WHERE name = ? AND cleared_step IS NULL", (step, name))))

    def supersede(self, after_step: int) -> int:
        """Begins a new attempt behind a checkpoint of `after_step` finished steps: rows beyond it keep their attempt and
        leave the charts. Returns the new attempt's number. Evaluations at `after_step` itself stay."""
        def write(db: sqlite3.Connection) -> None:
            _in_transaction(db, lambda: _overtake(db, after_step, self.attempt + 1))
            self.attempt += 1

        self._enqueue(write)
        self.flush()
        return self.attempt

    def flush(self, timeout: float | None = None) -> None:
        """Waits until everything handed over is committed. Raises RunError for a failure or when time is up."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._error or not self._jobs, timeout)
            self._raise()
            if not done:
                raise RunError(f"The record is not written yet: {len(self._jobs)} steps wait for {self.folder.db_path}. "
                               "Another program holds it; close what has the file open for writing.")

    def retry(self) -> None:
        """After room was made: tries again what failed. `flush` tells whether it worked."""
        with self._changed:
            self._error = None
            self._changed.notify_all()

    def close(self, timeout: float | None = 60.0) -> None:
        """Writes what waits, fills the search index, folds the log into the database. Raises RunError where that failed;
        the connection is closed in any case."""
        if self._closing:
            return
        try:
            self.flush(timeout)
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join(timeout)
            if not self._thread.is_alive():
                self._db.close()

    def _enqueue(self, write: Write, token_bytes: int = 0) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._jobs) < self._max_pending)
            if self._closing:
                raise RunError("The record of this run is closed already.")
            self._jobs.append(Job(write, token_bytes))
            self._token_bytes += token_bytes
            self._changed.notify_all()
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                idle = None if not self._unindexed else _IDLE_SECONDS
                self._changed.wait_for(lambda: self._closing or (self._jobs and not self._error), idle)
                if self._closing and (self._error or not self._jobs):
                    break
                job = self._jobs[0] if self._jobs and not self._error else None
            if job is None or self._unindexed >= _INDEX_BATCH:
                self._index()
            if job is not None:
                self._run(job)
        if self._error is None:
            while self._unindexed and self._index():
                pass
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error:
                pass  # the log beside the database is complete and valid without this

    def _run(self, job: Job) -> None:
        """Tries a job until it is written, or leaves it at the head of the queue with the reason it cannot be."""
        while True:
            try:
                job.write(self._db)
                break
            except sqlite3.OperationalError as error:
                self._roll_back()
                if error.sqlite_errorcode & 0xFF in _LOCKED and not self._closing:
                    time.sleep(0.05)  # sqlite has waited 5 s already; the queue absorbs the rest
                    continue
                return self._fail(RunError(
                    f"The record of this run cannot be written: {error} ({self.folder.db_path}). Nothing recorded is lost; make "
                    "room on the disk, then resume."))
            except Exception as error:  # process boundary: a record that cannot be stored must be told, not kill the thread
                self._roll_back()
                self._done()
                failure = RunError(f"A record could not be stored ({type(error).__name__}: {error}). The run's earlier steps are safe.")
                failure.__cause__ = error
                return self._fail(failure)
        self._done()

    def _done(self) -> None:
        with self._changed:
            self._token_bytes -= self._jobs.popleft().token_bytes
            self._changed.notify_all()

    def _fail(self, error: RunError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _insert(self, db: sqlite3.Connection, rows: Rows, kept: bool, dropped: bool) -> None:
        metrics = dict(rows.metrics)
        if dropped:
            metrics["record/tokens_dropped"] = 1.0
        new_prompts = [row for row in rows.prompts if row[0] not in self._known_prompts]

        def write() -> None:
            db.execute("UPDATE steps SET current = 0 WHERE current AND step = ? AND kind = ? AND mode = ?", rows.step[:3])
            step_id = db.execute(_INSERT_STEP, (*rows.step, int(kept), dumps(metrics), *rows.step_json)).lastrowid
            first_group = _next_id(db, "groups")
            first_sample = _next_id(db, "samples")
            db.executemany("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?)", new_prompts)
            db.executemany("INSERT INTO prompts_fts VALUES (?, ?)", [(row[0], row[1]) for row in new_prompts])
            db.executemany(_INSERT_GROUP, [(first_group + k, step_id, k, *row) for k, row in enumerate(rows.groups)])
            db.executemany(_INSERT_SAMPLE, [
                (first_sample + i, first_group + k, step_id, i, *row) for i, (k, row) in enumerate(rows.samples)])
            db.executemany("INSERT INTO sample_rewards VALUES (?, ?, ?, ?)", [(first_sample + i, *row) for i, row in rows.rewards])

        _in_transaction(db, write)
        self._known_prompts.update(row[0] for row in new_prompts)
        self._unindexed += len(rows.samples)

    def _save_tokens(self, record: StepRecord) -> bool:
        assert record.tokens is not None
        try:
            tokens.save(self.folder.tokens / tokens.file_name(record.step, record.kind, record.mode), record.tokens)
            if record.kind == "train" and record.step % 10 == 0:
                tokens.retire(self.folder.tokens, record.step, self.config.keep_token_steps)
        except OSError:
            return False  # no room for arrays must not cost rows; the step says so in record/tokens_dropped
        return True

    def _learn_tokens(self, record: StepRecord) -> None:
        """In the caller's thread: tokenizers do not like two threads."""
        if self._token_text is None or record.tokens is None:
            return
        seen = {int(token) for token in np.unique(np.concatenate(record.tokens.token_ids or [np.zeros(0, np.int32)]))}
        if new := sorted(seen - self._known_tokens):
            self._known_tokens |= seen
            rows = [(token, _as_bytes(self._token_text(token))) for token in new]
            self._enqueue(lambda db: _in_transaction(db, lambda: db.executemany(
                "INSERT OR REPLACE INTO token_texts VALUES (?, ?)", rows)))

    def _index(self) -> bool:
        """Adds the next samples to the search index. Search is a convenience: what fails here is tried again later."""
        db = self._db
        try:
            last = db.execute("SELECT coalesce(max(id), 0) FROM samples_fts_docsize").fetchone()[0]
            rows = db.execute("SELECT id, text FROM samples WHERE id > ? ORDER BY id LIMIT ?", (last, _INDEX_BATCH)).fetchall()
            _in_transaction(db, lambda: db.executemany("INSERT INTO samples_fts (rowid, text) VALUES (?, ?)", rows))
        except sqlite3.Error:
            self._roll_back()
            return False
        self._unindexed = 0 if len(rows) < _INDEX_BATCH else _unindexed(db)
        return True


_INSERT_STEP = ("INSERT INTO steps (step, kind, mode, attempt, started, seconds, tokens, metrics_json, phases_json, cells_json) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
_INSERT_GROUP = ("INSERT INTO groups (id, step_id, k, prompt_id, n, scored, right, reward_mean, reward_std, gradient_share, dead) "
                 "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
_INSERT_SAMPLE = (
    "INSERT INTO samples (id, group_id, step_id, idx, length, finish_reason, reward, right, advantage, logprob_sum, kl, kl_sum, "
    "entropy, gradient_share, delta_logp, seed, weights_version, style, logs_json, text) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
_INSERT_EVENT = "INSERT INTO events (time, step, kind, data_json) VALUES (?, ?, ?, ?)"
_INSERT_ALARM = (
    "INSERT INTO alarms (name, level, time, since_step, last_step, claim, text, evidence_json, remedies_json) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) WHERE cleared_step IS NULL DO UPDATE SET level = excluded.level, "
    "last_step = excluded.last_step, claim = excluded.claim, text = excluded.text, evidence_json = excluded.evidence_json, "
    "remedies_json = excluded.remedies_json")


def _begin(db: sqlite3.Connection) -> int:
    """The attempt that goes on: the newest, or 1 in a new database."""
    attempt = db.execute("SELECT max(attempt) FROM attempts").fetchone()[0]
    if attempt is None:
        attempt = 1
        db.execute("INSERT INTO attempts VALUES (1, 0, 0, ?)", (time.time(),))
    return int(attempt)


def _overtake(db: sqlite3.Connection, after_step: int, attempt: int) -> None:
    last = db.execute("SELECT coalesce(max(id), 0) FROM steps").fetchone()[0]
    db.execute("INSERT INTO attempts VALUES (?, ?, ?, ?)", (attempt, after_step, last, time.time()))
    db.execute("UPDATE steps SET current = 0 WHERE current AND kind = 'train' AND step >= ?", (after_step,))
    db.execute("UPDATE steps SET current = 0 WHERE current AND kind = 'eval' AND step > ?", (after_step,))
    db.execute("UPDATE alarms SET cleared_step = ? WHERE cleared_step IS NULL AND since_step >= ?", (after_step, after_step))


def _unindexed(db: sqlite3.Connection) -> int:
    indexed = db.execute("SELECT coalesce(max(id), 0) FROM samples_fts_docsize").fetchone()[0]
    return int(db.execute("SELECT coalesce(max(id), 0) FROM samples").fetchone()[0]) - int(indexed)


def _next_id(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])


def _in_transaction(db: sqlite3.Connection, work: Callable[[], object]) -> None:
    db.execute("BEGIN IMMEDIATE")
    work()
    db.execute("COMMIT")


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")
