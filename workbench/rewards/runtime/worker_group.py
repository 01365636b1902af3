"""A few equal processes that hold the same rewards, and what happens when one is lost.

In: groups. Out: for each sample the value of each reward, or None with the reason. A call that does not return in time, or
ends its process, costs that sample its value and nothing else.
"""

import contextlib
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from workbench.core.errors import RewardError
from workbench.core.types import Score
from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.runtime.messages import Call, CallResult, RunFacts
from workbench.rewards.runtime.process import ProcessLost, RewardProcess
from workbench.rewards.runtime.registry import RewardSource
from workbench.rewards.runtime.runner import timed_out

_ASYNC_GRACE = 2.0
"""Seconds. An asynchronous reward ends its own late calls; its process gets this much longer before it is killed."""
_UNTRIED = "Not tried"
_LOSSES_A_GROUP = 2
"""After so many lost calls of one reward in one group the rest of that group is not tried any more."""
_ENDED_ITSELF = "ended its own process"

Starter = Callable[[Sequence[RewardCode], RunFacts], RewardProcess]
"""Makes a process that holds these rewards; a cache hands out one that runs already."""
Recorded = Sequence[list[Score] | None]
"""For each group the scores that are known from the record, sample by sample, or None."""


class WorkerResult(NamedTuple):
    """What the rewards of a worker group give for some groups."""

    scores: list[Score]
    """In flat sample order, with the values of these rewards and without a total."""
    metrics: dict[str, list[float]]
    printed: str


class WorkerGroup:
    """Processes that stay loaded with some rewards. Made without waiting; every method may be called from any thread."""

    def __init__(
        self,
        sources: Sequence[RewardSource],
        facts: RunFacts,
        workers: int,
        starter: Starter = RewardProcess,
    ) -> None:
        self._starter = starter
        self._sources = tuple(sources)
        self._facts = facts
        self.names = tuple(source.name for source in sources)
        """Of its rewards."""
        self.is_external = any(source.shape.is_external for source in sources)
        """Whether its rewards ask a server or a person."""
        self._idle: queue.SimpleQueue[RewardProcess | None] = queue.SimpleQueue()
        """None stands for a process that is started when it is needed."""
        self._alive: set[RewardProcess] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="rewards")
        for _ in range(workers):
            self._idle.put(self._start())

    @property
    def pids(self) -> set[int]:
        """Of the processes that are alive."""
        with self._lock:
            return {process.pid for process in self._alive}

    def submit(
        self, groups: Sequence[RewardInput], step: int, recorded: Recorded = ()
    ) -> Future[WorkerResult]:
        """Score groups, one after the other, in the first process that is free. `recorded`: scores that are taken as they are."""
        return self._threads.submit(self._score, groups, step, recorded or [None] * len(groups))

    def close(self) -> None:
        """End all processes, whatever they are doing. A caller that waits for scores gets a RewardError."""
        with self._lock:
            self._closed = True
        idle: list[RewardProcess | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for waiting in idle:
            self._put_back(waiting)
        with self._lock:
            busy = list(self._alive)
        for process in busy:
            process.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> RewardProcess:
        process = self._starter(self._sources, self._facts)
        with self._lock:
            if not self._closed:
                self._alive.add(process)
                return process
        process.close()
        raise RewardError("The reward pool is closed.")

    def _put_back(self, process: RewardProcess | None) -> None:
        if process is not None and self._closed:
            self._discard(process)
            process = None
        self._idle.put(process)

    def _discard(self, process: RewardProcess) -> None:
        process.close()
        with self._lock:
            self._alive.discard(process)

    def _score(self, groups: Sequence[RewardInput], step: int, recorded: Recorded) -> WorkerResult:
        unknown = [group for group, known in zip(groups, recorded, strict=True) if known is None]
        found = self._by_sample(unknown, self._results(unknown, step))
        rest = iter(found.scores)
        scores = [
            score
            for group, known in zip(groups, recorded, strict=True)
            for score in (known or [next(rest) for _ in group["completions"]])
        ]
        return found._replace(scores=scores)

    def _results(self, groups: Sequence[RewardInput], step: int) -> dict[Call, CallResult]:
        """The result of every call; of a lost one the reason. A process that ended by itself is tried once more."""
        results: dict[Call, CallResult] = {}
        pending = list(self._calls(groups))
        retried: set[Call] = set()
        losses: Counter[tuple[int, int]] = Counter()
        process = self._idle.get()
        try:
            while pending:
                process = process or self._start()
                try:
                    process.request(step, groups, pending)
                    waiting = deque(pending)
                    while waiting:
                        for result in process.results(self._limit(waiting[0])):
                            results[waiting.popleft()] = result
                    break
                except ProcessLost as lost:
                    self._discard(process)
                    process = None
                    culprit = pending[lost.running]
                    pending = [call for call in pending if call not in results]
                    if culprit in results:  # it ended between two calls
                        culprit = pending[0]
                    if lost.ended and culprit not in retried:
                        retried.add(culprit)
                        continue
                    reason = self._why(lost, culprit)
                    results[culprit] = _without_value(culprit, groups, reason)
                    losses[culprit[:2]] += 1
                    if losses[culprit[:2]] >= _LOSSES_A_GROUP:
                        reason = f"{_UNTRIED}, after {losses[culprit[:2]]} lost calls in this group. {reason}"
                        for call in pending:
                            if call[:2] == culprit[:2] and call != culprit:
                                results[call] = _without_value(call, groups, reason)
                    pending = [call for call in pending if call not in results]
        except BaseException:
            if process is not None:
                self._discard(process)
            process = None  # the next groups start a new one
            raise
        finally:
            self._put_back(process)
        return results

    def _calls(self, groups: Sequence[RewardInput]) -> Iterator[Call]:
        for place, group in enumerate(groups):
            for which, source in enumerate(self._sources):
                if source.shape.kind == "sample" and not source.shape.is_async:
                    for index in range(len(group["completions"])):
                        yield Call(place, which, index)
                else:
                    yield Call(place, which, None)

    def _limit(self, call: Call) -> float:
        return self._facts.timeout + (_ASYNC_GRACE if self._sources[call.reward].shape.is_async else 0.0)

    def _why(self, lost: ProcessLost, call: Call) -> str:
        source = self._sources[call.reward]
        if lost.ended:
            return f"{source.subject} {_ENDED_ITSELF} ({lost.ended}), twice. {source.at(source.shape.line)}"
        at = f" {source.quoted(lost.at[1])}" if lost.at and lost.at[0] == source.path else ""
        return timed_out(self._facts.timeout) + at

    def _by_sample(self, groups: Sequence[RewardInput], results: dict[Call, CallResult]) -> WorkerResult:
        sizes = [len(group["completions"]) for group in groups]
        firsts = [sum(sizes[:place]) for place in range(len(sizes))]
        values: list[dict[str, float | None]] = [{} for _ in range(sum(sizes))]
        reasons: list[dict[str, str]] = [{} for _ in values]
        logs: list[dict[str, Any]] = [{} for _ in values]
        metrics: dict[str, list[float]] = {}
        printed = ""
        for call, result in results.items():
            name, first = self.names[call.reward], firsts[call.group] + (call.sample or 0)
            for item, value in enumerate(result.values):
                values[first + item][name] = value
                if value is None:
                    reasons[first + item][name] = result.reasons[item]
                for column, logged in result.logs.items():
                    logs[first + item][column] = logged[item]
            for metric, numbers in result.metrics.items():
                metrics.setdefault(metric, []).extend(numbers)
            printed += result.printed
        scores = [
            Score(value, reason, logs=log) for value, reason, log in zip(values, reasons, logs, strict=True)
        ]
        return WorkerResult(scores, metrics, printed)


def is_lost_call(reason: str, timeout: float) -> bool:
    """Whether a sample has no value because its call hung or ended its process: others will do the same."""
    return reason.startswith(timed_out(timeout)) or _ENDED_ITSELF in reason or reason.startswith(_UNTRIED)


def _without_value(call: Call, groups: Sequence[RewardInput], reason: str) -> CallResult:
    count = 1 if call.sample is not None else len(groups[call.group]["completions"])
    return CallResult([None] * count, [reason] * count)
