"""A few equal processes that hold the same rewards, and what to do when one is lost.

In: groups. Out: for each sample the value of each reward, or None with the reason. A call that does not come
back in time, or ends its process, costs that sample its value and nothing else.
"""

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from workbench.core.errors import RewardError
from workbench.rewards.api.outcome import Origin
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.runtime.process import Call, Ended, Lost, RewardProcess, TooLate
from workbench.rewards.runtime.registry import RewardSource
from workbench.rewards.runtime.runner import Answer, Description, RunFacts, too_late

_ASYNC_GRACE = 2.0
"""An asynchronous reward ends its own late calls; its process gets this much longer before it is killed."""
_UNTRIED = "Not tried"
_LOSSES_A_GROUP = 2
"""After so many lost calls of one reward in one group the rest of that group is not tried any more."""


ENDED_ITSELF = "ended its own process"
"""In the reason of a sample whose reward did."""
Starter = Callable[[Sequence[Description], RunFacts], RewardProcess]
"""Makes a process that holds these rewards; whoever keeps spare ones hands out those."""


class PartialScore(NamedTuple):
    """What a crew's rewards say about one sample, by name."""

    values: dict[str, float | None]
    reasons: dict[str, str]
    logs: dict[str, Any]


class WorkerResult(NamedTuple):
    """What a crew's rewards say about some groups."""

    parts: list[PartialScore]
    """In flat sample order."""
    metrics: dict[str, list[float]]
    printed: str


class WorkerGroup:
    """Warm processes for some rewards. Made without waiting; every method may be called from any thread."""

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
        self._workers = workers
        self._idle: queue.SimpleQueue[RewardProcess | None] = queue.SimpleQueue()
        self._alive: set[RewardProcess] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="rewards")
        for _ in range(workers):
            self._idle.put(self._start())

    @property
    def names(self) -> tuple[str, ...]:
        """Of its rewards."""
        return tuple(source.name for source in self._sources)

    @property
    def asks_outside(self) -> bool:
        """Whether its rewards ask a server or a person."""
        return any(source.shape.asks_outside for source in self._sources)

    @property
    def pids(self) -> set[int]:
        """Of the processes that are alive."""
        with self._lock:
            return {process.pid for process in self._alive}

    def submit(self, groups: Sequence[RewardInput], step: int) -> Future[WorkerResult]:
        """Score groups, one after the other, in the first process that is free."""
        return self._threads.submit(self._score, groups, step)

    def close(self) -> None:
        """End all processes, whatever they are doing. Who waits for scores gets a RewardError."""
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
        process = self._starter([source.description() for source in self._sources], self._facts)
        with self._lock:
            if not self._closed:
                self._alive.add(process)
                return process
        process.close()
        raise RewardError("The reward pool is closed.")

    def _put_back(self, process: RewardProcess | None) -> None:
        """Into the row of idle processes, where None stands for one that is started when it is needed."""
        if process is not None and self._closed:
            self._forget(process)
            process = None
        self._idle.put(process)

    def _forget(self, process: RewardProcess) -> None:
        process.close()
        with self._lock:
            self._alive.discard(process)

    def _score(self, groups: Sequence[RewardInput], step: int) -> WorkerResult:
        process = self._idle.get()
        answers: dict[Call, Answer] = {}
        pending = list(self._calls(groups))
        losses: Counter[tuple[int, int]] = Counter()
        retried: set[Call] = set()
        try:
            while pending:
                process = process or self._start()
                try:
                    self._ask(process, groups, pending, step, answers)
                    break
                except Lost as loss:
                    self._forget(process)
                    process = None
                    culprit = pending[loss.running]
                    pending = [call for call in pending if call not in answers]
                    if culprit in answers:  # it ended between two calls
                        culprit = pending[0]
                    if isinstance(loss, Ended) and culprit not in retried:
                        retried.add(culprit)
                        continue
                    losses[culprit[:2]] += 1
                    answers |= self._given_up(culprit, pending, losses[culprit[:2]], groups, loss)
                    pending = [call for call in pending if call not in answers]
        except BaseException:
            if process is not None:
                self._forget(process)
            process = None  # the next groups start a fresh one
            raise
        finally:
            self._put_back(process)
        return self._by_sample(groups, answers)

    def _calls(self, groups: Sequence[RewardInput]) -> Iterator[Call]:
        for place, group in enumerate(groups):
            for which, source in enumerate(self._sources):
                if source.shape.kind == "sample" and not source.shape.is_async:
                    for index in range(len(group["completions"])):
                        yield place, which, index
                else:
                    yield place, which, None

    def _ask(
        self,
        process: RewardProcess,
        groups: Sequence[RewardInput],
        calls: Sequence[Call],
        step: int,
        answers: dict[Call, Answer],
    ) -> None:
        """Fill `answers` call by call. Raises Lost with those that came before it in place."""
        process.ask(groups, calls, step)
        for call in calls:
            grace = _ASYNC_GRACE if self._sources[call[1]].shape.is_async else 0.0
            answers[call] = process.answer(self._facts.timeout + grace)

    def _given_up(
        self, culprit: Call, pending: Sequence[Call], losses: int, groups: Sequence[RewardInput], loss: Lost
    ) -> dict[Call, Answer]:
        """No value for a lost call; after several in one group none for the rest of that reward there."""
        reason = self._why(loss, culprit[1])
        nothing = {culprit: _nothing(culprit, groups, reason)}
        if losses >= _LOSSES_A_GROUP:
            untried = f"{_UNTRIED}, after {losses} lost calls in this group. {reason}"
            for call in pending:
                if call[:2] == culprit[:2] and call != culprit:
                    nothing[call] = _nothing(call, groups, untried)
        return nothing

    def _why(self, loss: Lost, which: int) -> str:
        source = self._sources[which]
        origin = Origin(
            f"The reward {source.name}" if source.ours else "Your reward", source.file, source.path
        )
        if isinstance(loss, TooLate):
            at = f" {origin.quoted(loss.where[1])}" if loss.where and loss.where[0] == source.path else ""
            return too_late(self._facts.timeout) + at
        how = loss.how if isinstance(loss, Ended) else str(loss)
        return f"{origin.who} {ENDED_ITSELF} ({how}), twice. {origin.at(source.shape.line)}"

    def _by_sample(self, groups: Sequence[RewardInput], answers: dict[Call, Answer]) -> WorkerResult:
        sizes = [len(group["completions"]) for group in groups]
        firsts = [sum(sizes[:place]) for place in range(len(sizes))]
        parts = [PartialScore({}, {}, {}) for _ in range(sum(sizes))]
        metrics: dict[str, list[float]] = {}
        printed = ""
        for (place, which, index), answer in answers.items():
            name = self._sources[which].name
            indices = range(sizes[place]) if index is None else (index,)
            for item, index_in_group in enumerate(indices):
                part = parts[firsts[place] + index_in_group]
                part.values[name] = answer["values"][item]
                if answer["values"][item] is None:
                    part.reasons[name] = answer["reasons"][item]
                for column, logged in answer.get("logs", {}).items():
                    part.logs[column] = logged[item]
            for metric, numbers in answer.get("metrics", {}).items():
                metrics.setdefault(metric, []).extend(numbers)
            printed += answer.get("printed", "")
        return WorkerResult(parts, metrics, printed)


def is_lost_call(reason: str, timeout: float) -> bool:
    """Whether a sample has no value because its call hung or took its process along: more of them will."""
    return reason.startswith(too_late(timeout)) or ENDED_ITSELF in reason or reason.startswith(_UNTRIED)


def _nothing(call: Call, groups: Sequence[RewardInput], reason: str) -> Answer:
    count = 1 if call[2] is not None else len(groups[call[0]]["completions"])
    return Answer(values=[None] * count, reasons=[reason] * count)
