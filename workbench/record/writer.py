"""Writes the record of a run: one bounded queue, one thread, one transaction a step.

The loop hands over a `StepRecord` and goes on. Token arrays may be dropped under pressure (counted); rows
never are: a full queue makes the loop wait, a full disk keeps everything in memory and is raised at the
loop's next call.
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
    """One thing to write, and the bytes of token arrays that wait with it."""

    write: Write
    token_bytes: int = 0


class Writer:
    """The only writer of a run's run.db and tokens/. Use as a context manager, or call `close`.

    `token_text(id)` gives one token's text (bytes where a token may hold part of a character); with it the
    reader shows tokens without a tokenizer. Call `start_attempt` before the first step of a resumed run.
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
        self.token_text = token_text
        self._max_pending = max_pending
        self._max_token_bytes = max_token_bytes
        make_folder(folder.tokens)
        for rest in folder.tokens.glob(".*"):  # of a process that was killed: ours, and safetensors' own
            rest.unlink(missing_ok=True)
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

    # -- what the loop calls ---------------------------------------------------------------------------------

    def step(self, record: StepRecord) -> None:
        """Records one step or evaluation. Returns at once unless the queue is full.

        The record is kept even where an earlier failure is raised here (RunError): after `retry` nothing is
        lost.
        """
        started = time.time() - (record.metrics.get("step_time") or sum(record.phases.values()))
        self._learn_tokens(record)
        size = tokens.size(record.tokens) if record.tokens else 0
        numbers = None
        if size and self._token_bytes + size > self._max_token_bytes:
            # Too much waits already: compute what the rows need now, and let the arrays go.
            numbers = rollup.sample_numbers(record, rollup.accuracy_reward(self.config, record))
            record, size = replace(record, tokens=None), 0

        def write(db: sqlite3.Connection) -> None:
            rows = step_rows(record, self.config, started, self.attempt, numbers)
            kept = numbers is None and record.tokens is not None and self._save_tokens(record)
            if not kept and (record.tokens is not None or numbers is not None):
                rows.metrics["record/tokens_dropped"] = 1.0
            store.in_transaction(db, lambda: store.insert_step(db, rows, self._known, tokens_kept=kept))
            self._known.learn(rows)
            self._unindexed += len(rows.samples)

        self._enqueue(write, size)

    def event(self, kind: str, data: Mapping[str, Any] | None = None, step: int | None = None) -> None:
        """Records that something happened: a command and its answer, a setting changed, a checkpoint, an
        end."""
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
        """Raises an alarm, or renews the open one of that name. `level` is `info`, `warning` or `critical`; a
        remedy is {"label", "command", "args"} or {"label", "fork": settings, "step": where from}; evidence
        names figures and answers. `since`: the step at which it began, where that was before `step`."""
        told = (clean(claim), clean(text), dumps(evidence or {}), dumps(list(remedies)))
        row = (name, level, time.time(), step if since is None else since, step, *told)
        self._transact(lambda db: store.raise_alarm(db, row))

    def clear_alarm(self, name: str, step: int) -> None:
        """Ends the open alarm of that name, if there is one."""
        self._transact(lambda db: store.clear_alarm(db, name, step))

    def start_attempt(self, after_step: int) -> int:
        """Begins a new attempt behind a checkpoint of `after_step` finished steps and returns its number:
        rows beyond it keep their attempt and leave the charts. Evaluations at `after_step` itself stay."""
        attempt = self.attempt + 1
        self._transact(lambda db: store.start_attempt(db, after_step, attempt))
        self.flush()
        self.attempt = attempt
        return attempt

    def flush(self, timeout: float | None = None) -> None:
        """Waits until everything handed over is committed. Raises RunError for a failure or when time is
        up."""
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
        """Why nothing more is written just now; None where all is well."""
        return self._error

    def retry(self) -> None:
        """After room was made: tries again what failed. `flush` tells whether it worked."""
        with self._changed:
            self._error = None
            self._changed.notify_all()

    def close(self, timeout: float | None = 60.0) -> None:
        """Writes what waits, fills the search index, folds the log into the database. Raises RunError where
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
                self._raise()  # a full disk is waited out at the next boundary: see `failure`

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
            # A plain single file, readable from any medium. While somebody reads this is refused, and the log
            # beside the database stays, complete and valid.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA busy_timeout = 200")
                self._db.execute("PRAGMA journal_mode = DELETE")

    def _next(self) -> Job | None:
        """The oldest job, which stays in the queue until it is written; None: nothing to do, for a while or
        at all."""
        with self._changed:
            idle = _IDLE_SECONDS if self._unindexed else None
            self._changed.wait_for(lambda: self._closing or (self._jobs and not self._error), idle)
            return self._jobs[0] if self._jobs and not self._error else None

    def _run(self, job: Job) -> None:
        """Tries a job until it is written, or leaves it at the head of the queue with the reason it cannot
        be."""
        while True:
            try:
                job.write(self._db)
                return self._done()
            except sqlite3.OperationalError as error:
                self._roll_back()
                if error.sqlite_errorcode & 0xFF in _LOCKED and not self._closing:
                    continue  # sqlite has waited its time-out; the queue absorbs the rest
                full = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
                return self._fail(
                    (DiskFull if full else RunError)(
                        f"The record of this run cannot be written: {error} ({self.folder.db_path}). Nothing "
                        "recorded is lost; make room on the disk, then resume."
                    )
                )
            except (
                Exception
            ) as error:  # process boundary: a record that cannot be stored is told, not fatal here
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
        """Adds samples to the search index. Search is a convenience: what fails here is tried again later."""
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
            left = disk_space.measure(self.folder)
            if left.free < left.needed_for_tokens:
                return False
            name = tokens.file_name(record.step, record.kind, record.mode)
            tokens.save(self.folder.tokens / name, record.tokens)
            if record.kind == "train" and record.step % 10 == 0:
                tokens.retire(self.folder.tokens, record.step, self.config.keep_token_steps)
        except OSError:
            return False  # no room for arrays must not cost rows; the step says so in record/tokens_dropped
        return True

    def _learn_tokens(self, record: StepRecord) -> None:
        """In the caller's thread: tokenizers do not like two threads."""
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
