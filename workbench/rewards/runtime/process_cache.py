"""Reward code that a user edits and tries again and again: processes started ahead, and the last few codes kept loaded.

In: source text with its specs. Out: a `RewardPool` that is ready to score, in a few milliseconds instead of the time that starting
Python takes.
"""

import contextlib
import hashlib
import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.source import SourceText
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.messages import RunFacts
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.process import RewardProcess
from workbench.rewards.runtime.registry import RewardSource

KEPT = 4
"""Codes that stay loaded: the one being edited, the one it is compared with, and one or two to go back to."""
SPARES = 3
IDLE_SECONDS = 900.0
"""After so long without a trial all processes end; the next trial starts new ones."""


class LoadedRewards(NamedTuple):
    """Rewards that are ready to score."""

    sources: list[RewardSource]
    """With the weights that were asked for; `weighted` totals by them."""
    pool: RewardPool


class ProcessCache:
    """Loaded reward processes for a user's trials. Every method may be called from any thread."""

    def __init__(self, timeout: float, load_timeout: float, workers: int = 2) -> None:
        self.timeout = timeout
        self._load_timeout = load_timeout
        self._workers = workers
        self._folder = tempfile.TemporaryDirectory(prefix="workbench-lab-", ignore_cleanup_errors=True)
        self._kept: OrderedDict[str, LoadedRewards] = OrderedDict()
        self._spares: list[RewardProcess] = []
        self._lock = threading.Lock()
        self._closed = False
        self._idle_timer: threading.Timer | None = None

    def warm_up(self) -> None:
        """Start spare processes in the background."""
        threading.Thread(target=self._start_spares, name="reward-spares", daemon=True).start()

    def load(
        self,
        specs: Sequence[RewardSpec],
        texts: Sequence[SourceText],
        columns: Collection[str] | None = None,
        max_length: int | None = None,
    ) -> LoadedRewards:
        """Rewards ready to score. Raises RewardError where the code cannot be loaded or asks for what is not there."""
        key = _key(specs, texts, max_length)
        self._restart_idle_timer()
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None:
            found = self._load(specs, texts, max_length)
            with self._lock:
                self._kept[key] = found
                dropped = [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - KEPT)]
            for old in dropped:
                old.pool.close()
        shapes = [one.shape for one in found.sources]
        return LoadedRewards(registry.checked(specs, found.sources, shapes, columns), found.pool)

    def discard(self, rewards: LoadedRewards) -> None:
        """End the processes of these rewards at once: they hang, or no trial waits for them any more."""
        with self._lock:
            for key in [key for key, kept in self._kept.items() if kept.pool is rewards.pool]:
                del self._kept[key]
        rewards.pool.close()

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._end_all()
        self._folder.cleanup()

    def _restart_idle_timer(self) -> None:
        with self._lock:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._idle_timer = threading.Timer(IDLE_SECONDS, self._end_all)
            self._idle_timer.daemon = True
            self._idle_timer.start()

    def _end_all(self) -> None:
        with self._lock:
            kept, self._kept = list(self._kept.values()), OrderedDict()
            spares, self._spares = self._spares, []
        for one in kept:
            one.pool.close()
        for process in spares:
            process.close()

    def _load(
        self, specs: Sequence[RewardSpec], texts: Sequence[SourceText], max_length: int | None
    ) -> LoadedRewards:
        codes = registry.saved(specs, texts, Path(self._folder.name))
        first = self._start(codes, RunFacts(self.timeout, max_length=max_length))
        try:
            sources = registry.checked(specs, codes, first.shapes())
        except BaseException:
            first.close()
            raise
        ready = [first]

        def start(rewards: Sequence[RewardCode], facts: RunFacts) -> RewardProcess:
            if ready and [one.name for one in rewards] == [code.name for code in codes]:
                return ready.pop()
            return self._start(rewards, facts)

        pool = RewardPool(sources, self._workers, self.timeout, max_length=max_length, starter=start)
        for unused in ready:  # the pool divides these rewards among several worker groups
            unused.close()
        return LoadedRewards(sources, pool)

    def _start(self, rewards: Sequence[RewardCode], facts: RunFacts) -> RewardProcess:
        """A spare process that is assigned these rewards, or a new one."""
        with self._lock:
            process = self._spares.pop() if self._spares else None
        self.warm_up()
        if process is None:
            return RewardProcess(rewards, facts, self._load_timeout)
        process.assign(rewards, facts, self._load_timeout)
        return process

    def _start_spares(self) -> None:
        with contextlib.suppress(OSError, RewardError):  # then the next trial starts its own process
            while True:
                with self._lock:
                    if self._closed or len(self._spares) >= SPARES:
                        return
                process = RewardProcess()
                with self._lock:
                    if not self._closed and len(self._spares) < SPARES:
                        self._spares.append(process)
                        continue
                process.close()
                return


def _key(specs: Sequence[RewardSpec], texts: Sequence[SourceText], max_length: int | None) -> str:
    """The same code, functions and options: weights and switches do not change what is loaded."""
    parts = [
        (text.sha, text.function, text.file, dict(spec.options))
        for spec, text in zip(specs, texts, strict=True)
    ]
    return hashlib.sha256(json.dumps([parts, max_length]).encode()).hexdigest()
