"""Reward code tried again and again while a person edits it: processes started ahead, and the last few codes kept loaded.

In: source text with its specs. Out: a `RewardPool` that is ready to score, in a few milliseconds instead of the time that starting
Python takes.
"""

import contextlib
import dataclasses
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
from workbench.rewards.api import signature, source
from workbench.rewards.api.signature import Shape
from workbench.rewards.api.source import SourceText
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.process import RewardProcess
from workbench.rewards.runtime.registry import RewardSource
from workbench.rewards.runtime.runner import Description, RunFacts

KEPT = 4
"""Codes that stay loaded: what is edited, what it is compared with, and one or two to go back to."""
SPARES = 3
IDLE_SECONDS = 900.0
"""After so long without a trial all processes end; the next trial starts new ones."""


class LoadedRewards(NamedTuple):
    """Rewards that are loaded."""

    sources: list[RewardSource]
    """With the weights that were asked for; `weighted` totals by them."""
    pool: RewardPool


class ProcessCache:
    """Warm reward processes for one person's trials. Every method may be called from any thread."""

    def __init__(self, timeout: float, load_timeout: float, workers: int = 2) -> None:
        self.timeout = timeout
        self._load_timeout = load_timeout
        self._workers = workers
        self._folder = tempfile.TemporaryDirectory(prefix="workbench-lab-", ignore_cleanup_errors=True)
        self._ready: OrderedDict[str, LoadedRewards] = OrderedDict()
        self._spares: list[RewardProcess] = []
        self._lock = threading.Lock()
        self._closed = False
        self._rest: threading.Timer | None = None

    def warm_up(self) -> None:
        """Start spare processes in the background."""
        threading.Thread(target=self._restock, name="reward-spares", daemon=True).start()

    def load(
        self,
        specs: Sequence[RewardSpec],
        texts: Sequence[SourceText],
        columns: Collection[str] | None = None,
        max_length: int | None = None,
    ) -> LoadedRewards:
        """Rewards ready to score. Raises RewardError where the code cannot be loaded or asks for what is not
        there."""
        key = _key(specs, texts, max_length)
        self._stay()
        with self._lock:
            found = self._ready.get(key)
            if found is not None:
                self._ready.move_to_end(key)
        if found is None:
            found = self._loaded(specs, texts, max_length)
            with self._lock:
                self._ready[key] = found
                dropped = [self._ready.popitem(last=False)[1] for _ in range(len(self._ready) - KEPT)]
            for old in dropped:
                old.pool.close()
        for spec, one in zip(specs, found.sources, strict=True):
            problem = signature.problem(one.shape, spec.options, columns)
            if problem:
                raise RewardError(f"Reward {one.name} cannot be used: {problem}")
        sources = [
            dataclasses.replace(one, weight=spec.weight, enabled=spec.enabled)
            for spec, one in zip(specs, found.sources, strict=True)
        ]
        return LoadedRewards(sources, found.pool)

    def discard(self, ready: LoadedRewards) -> None:
        """End the processes of these rewards at once: they hang, or nobody waits for them any more."""
        with self._lock:
            for key in [key for key, kept in self._ready.items() if kept.pool is ready.pool]:
                del self._ready[key]
        ready.pool.close()

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        self._end()
        self._folder.cleanup()

    def _stay(self) -> None:
        """Begin the wait anew after which nobody seems to be there."""
        with self._lock:
            if self._rest is not None:
                self._rest.cancel()
            self._rest = threading.Timer(IDLE_SECONDS, self._end)
            self._rest.daemon = True
            self._rest.start()

    def _end(self) -> None:
        with self._lock:
            ready, self._ready = list(self._ready.values()), OrderedDict()
            spares, self._spares = self._spares, []
        for one in ready:
            one.pool.close()
        for spare in spares:
            spare.close()

    def _loaded(
        self, specs: Sequence[RewardSpec], texts: Sequence[SourceText], max_length: int | None
    ) -> LoadedRewards:
        names = registry.unique_names(texts)
        folder = Path(self._folder.name)
        paths = source.save(texts, folder)
        descriptions = [
            Description(name=name, path=str(path), function=text.function, file=text.file, ours=text.ours,
                        options=dict(spec.options))
            for spec, text, name, path in zip(specs, texts, names, paths, strict=True)
        ]  # fmt: skip
        facts = RunFacts(self.timeout, max_length=max_length)
        first = self._start(descriptions, facts)
        try:
            shapes = [Shape.of_json(shape) for shape in first.shapes()]
            sources = registry.save_shaped(specs, texts, names, shapes, folder)
        except BaseException:
            first.close()
            raise
        ours: list[RewardProcess] = [first]

        def start(wanted: Sequence[Description], facts: RunFacts) -> RewardProcess:
            if ours and list(wanted) == descriptions:
                return ours.pop()
            return self._start(wanted, facts)

        pool = RewardPool(sources, self._workers, self.timeout, max_length=max_length, starter=start)
        for unused in ours:  # a reward that wants a process of its own divides them otherwise
            unused.close()
        return LoadedRewards(sources, pool)

    def _start(self, rewards: Sequence[Description], facts: RunFacts) -> RewardProcess:
        """A spare process told what to hold, or a new one."""
        with self._lock:
            spare = self._spares.pop() if self._spares else None
        self.warm_up()
        if spare is None:
            return RewardProcess(rewards, facts, self._load_timeout)
        spare.take(rewards, facts, self._load_timeout)
        return spare

    def _restock(self) -> None:
        with contextlib.suppress(OSError, RewardError):  # then the next one is simply not warm
            while True:
                with self._lock:
                    if self._closed or len(self._spares) >= SPARES:
                        return
                spare = RewardProcess()
                with self._lock:
                    if not self._closed and len(self._spares) < SPARES:
                        self._spares.append(spare)
                        continue
                spare.close()
                return


def _key(specs: Sequence[RewardSpec], texts: Sequence[SourceText], max_length: int | None) -> str:
    """The same code, functions and options: weights and switches do not touch what is loaded."""
    parts = [
        (text.sha, text.function, text.file, dict(spec.options))
        for spec, text in zip(specs, texts, strict=True)
    ]
    return hashlib.sha256(json.dumps([parts, max_length]).encode()).hexdigest()
