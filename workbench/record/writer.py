"""Writes run.db and tokens/: a bounded queue of jobs, one writer thread, one transaction a step.

In: a `StepRecord`, an event or an alarm from the training loop, which goes on at once. Token arrays may be dropped
under pressure (counted), rows never: a full queue makes the loop wait, a full disk keeps them in memory and is
raised at the loop's next call.
"""

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np

from workbench.core.config import RunConfig
from workbench.core.errors import DiskFull, RunError
from workbench.core.types import StepRecord
from workbench.record import disk_space, rollup, schema, store, tokens
from workbench.record.files import make_folder
from workbench.record.folder import RunFolder
from workbench.record.rows import clean, dumps, event_row, step_rows

Write = Callable[[sqlite3.Connection], object]
_IDLE_SECONDS = 1.0
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class Job(NamedTuple):
    """One transaction to write, and the bytes of token arrays that it holds in memory."""

    write: Write
    token_bytes: int = 0


class Writer:
    """The only writer of a run's run.db and tokens/. Use as a context manager, or call `close`.

    `token_text(id)` gives one token's text (bytes where a token may be part of a character); it is stored, so that
    the reader shows tokens without a tokenizer. Call `start_attempt` before the first step of a resumed run.
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
        """Opens or creates run.db. Raises RunError: newer format, damaged, not writable."""
        self.folder = folder
        self.config = config or folder.config()
        self.token_text = token_text
        self._max_pending = max_pending
        self._max_token_bytes = max_token_bytes
        make_folder(folder.tokens)
        for temporary in folder.tokens.glob(".*"):  # left by a process that was killed
            temporary.unlink(missing_ok=True)
        self._db = schema.open_writer(folder.db_path)
        self.attempt = store.current_attempt(self._db)
        self._known = store.known(self._db)
        self._unindexed = store.unindexed(self._db)
        self._jobs: deque[Job] = deque()
        self._token_bytes = 0
        self._error: RunError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="record-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- called by the training loop ---------------------------------------------------------------------------------

    def step(self, record: StepRecord) -> None:
        """Queues one step or evaluation. Returns at once unless the queue is full.

        The record is queued even where an earlier failure is raised here (RunError): `retry` writes it.
        """
        started = time.time() - (record.metrics.get("step_time") or sum(record.phases.values()))
        self._store_token_texts(record)
        size = tokens.size(record.tokens) if record.tokens else 0
        numbers = None
        if size and self._token_bytes + size > self._max_token_bytes:
            # Too many bytes are queued: compute the rows' numbers now and drop the arrays.
            numbers = rollup.sample_numbers(record, rollup.accuracy_reward(self.config, record))
            record, size = replace(record, tokens=None), 0

        def write(db: sqlite3.Connection) -> None:
            rows = step_rows(record, self.config, started, self.attempt, numbers)
            kept = numbers is None and record.tokens is not None and self._save_tokens(record)
            if not kept and (record.tokens is not None or numbers is not None):
                rows.metrics["record/tokens_dropped"] = 1.0
            store.in_transaction(db, lambda: store.insert_step(db, rows, self._known, tokens_kept=kept))
            self._known.add(rows)
            self._unindexed += len(rows.samples)

        self._enqueue(write, size)

    def event(self, kind: str, data: Mapping[str, Any] | None = None, step: int | None = None) -> None:
        """Records an event: a command and its reply, a changed setting, a checkpoint, the end of the run."""
        row = event_row(kind, data, step)
        self._transact(lambda db: store.insert_event(db, row))

    def alarm(
        self,
        name: str,
        level: str,
        step: int,
        claim: str,
        text: str = "",
        evidence: Mapping[str, Any] | None = None,
        remedies: Sequence[Mapping[str, Any]] = (),
        since: int | None = None,
    ) -> None:
        """Raises an alarm, or updates the open one of that name. `level` is `info`, `warning` or `critical`; a
        remedy is {"label", "command", "args"} or {"label", "fork": settings, "step": forked from}; evidence
        holds figures and places of samples. `since`: the step at which it began, where that was before `step`."""
        texts = (clean(claim), clean(text), dumps(evidence or {}), dumps(list(remedies)))
        row = (name, level, time.time(), step if since is None else since, step, *texts)
        self._transact(lambda db: store.raise_alarm(db, row))

    def clear_alarm(self, name: str, step: int) -> None:
        """Ends the open alarm of that name, if there is one."""
        self._transact(lambda db: store.clear_alarm(db, name, step))

    def start_attempt(self, after_step: int) -> int:
        """Starts a new attempt from a checkpoint of `after_step` finished steps and returns its number: later rows
        of earlier attempts get `current` = 0. Evaluations at `after_step` itself stay current."""
        attempt = self.attempt + 1
        self._transact(lambda db: store.start_attempt(db, after_step, attempt))
        self.flush()
        self.attempt = attempt
        return attempt

    def flush(self, timeout: float | None = None) -> None:
        """Waits until every queued job is committed. Raises RunError for a failure or a time-out."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._error or not self._jobs, timeout)
            self._raise()
            if not done:
                count = len(self._jobs)
                raise RunError(
                    f"The record is not written yet: {count} entries wait for {self.folder.db_path}. "
                    "Another program holds it; close what has the file open for writing."
                )

    @property
    def failure(self) -> RunError | None:
        """Why nothing is written at the moment; None where writing works."""
        return self._error

    def retry(self) -> None:
        """Tries the failed job again, for example once the disk has space; `flush` raises if it fails again."""
        with self._changed:
            self._error = None
            self._changed.notify_all()

    def close(self, timeout: float | None = 60.0) -> None:
        """Writes what is queued, completes the search index and merges the WAL into run.db. Raises RunError where
        that failed; the connection is closed in any case."""
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

    # -- the queue -------------------------------------------------------------------------------------------

    def _transact(self, write: Write) -> None:
        self._enqueue(lambda db: store.in_transaction(db, lambda: write(db)))

    def _enqueue(self, write: Write, token_bytes: int = 0) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._jobs) < self._max_pending)
            if self._closing:
                raise RunError("The record of this run is closed already.")
            self._jobs.append(Job(write, token_bytes))
            self._token_bytes += token_bytes
            self._changed.notify_all()
            if not isinstance(self._error, DiskFull) or len(self._jobs) >= self._max_pending:
                self._raise()  # the loop waits for a full disk at the next step boundary: see `failure`

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # -- the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._next()) is not None or not self._closing:
            if job is None or self._unindexed >= store.INDEX_BATCH:
                self._index()
            if job is not None:
                self._run(job)
        if self._error is None:
            while self._unindexed and self._index():
                pass
            # A single file is readable from any medium. SQLite refuses this while another connection reads; the
            # WAL then stays beside run.db, complete and valid.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA busy_timeout = 200")
                self._db.execute("PRAGMA journal_mode = DELETE")

    def _next(self) -> Job | None:
        """The oldest job, which stays in the queue until it is written; None where there is none now."""
        with self._changed:
            idle = _IDLE_SECONDS if self._unindexed else None
            self._changed.wait_for(lambda: self._closing or (self._jobs and not self._error), idle)
            return self._jobs[0] if self._jobs and not self._error else None

    def _run(self, job: Job) -> None:
        """Tries a job until it is written, or leaves it at the head of the queue and keeps the reason."""
        while True:
            try:
                job.write(self._db)
                return self._done()
            except sqlite3.OperationalError as error:
                self._roll_back()
                if error.sqlite_errorcode & 0xFF in _LOCKED and not self._closing:
                    continue  # SQLite has waited for its time-out; jobs queue up meanwhile
                full = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
                return self._fail(
                    (DiskFull if full else RunError)(
                        f"The record of this run cannot be written: {error} ({self.folder.db_path}). Nothing "
                        "recorded is lost; free some disk space, then resume."
                    )
                )
            except Exception as error:  # process boundary: the loop learns of it at its next call
                self._roll_back()
                self._done()
                failure = RunError(
                    f"A record could not be stored ({type(error).__name__}: {error}). Earlier steps are safe."
                )
                failure.__cause__ = error
                return self._fail(failure)

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

    def _index(self) -> bool:
        """Adds a batch of samples to the search index; False where that failed, which is tried again later."""
        try:
            store.in_transaction(self._db, lambda: store.index_samples(self._db))
            self._unindexed = store.unindexed(self._db)
        except sqlite3.Error:
            self._roll_back()
            return False
        return True

    def _save_tokens(self, record: StepRecord) -> bool:
        assert record.tokens is not None
        with self._changed:
            if len(self._jobs) > self._max_pending // 2:
                return False
        try:
            space = disk_space.measure(self.folder)
            if space.free < space.needed_for_tokens:
                return False
            name = tokens.file_name(record.step, record.kind, record.mode)
            tokens.save(self.folder.tokens / name, record.tokens)
            if record.kind == "train" and record.step % 10 == 0:
                tokens.retire(self.folder.tokens, record.step, self.config.keep_token_steps)
        except OSError:
            return False  # rows are still written; the step records record/tokens_dropped
        return True

    def _store_token_texts(self, record: StepRecord) -> None:
        """Runs in the caller's thread: a tokenizer must not be used from two."""
        if self.token_text is None or record.tokens is None or not record.tokens.token_ids:
            return
        seen = {int(token) for token in np.unique(np.concatenate(record.tokens.token_ids))}
        new = sorted(seen - self._known.tokens)
        rows = [(token, _as_bytes(self.token_text(token))) for token in new]
        if rows:
            self._known.tokens.update(new)
            self._transact(lambda db: store.insert_token_texts(db, rows))


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")
