"""Scoring in processes that can be killed.

In: groups of answers. Out: a `Score` for each sample, in flat sample order, the same at any number of
processes. A call that does not come back in time, or ends its process, costs that sample its value and
nothing else.
"""

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

from workbench.errors import RewardError
from workbench.rewards import wire
from workbench.rewards.loaded import Answer, RunFacts, too_late
from workbench.rewards.outcome import INFRASTRUCTURE, NOT_APPLICABLE, Origin
from workbench.rewards.process import Call, Ended, Lost, RewardProcess, TooLate
from workbench.rewards.registry import DEFAULT_TIMEOUT, RewardSource
from workbench.rewards.wire import WireGroup
from workbench.types import Group, Score

_ASYNC_GRACE = 2.0
"""An asynchronous reward ends its own late calls; its process gets this much longer before it is killed."""
_LOSSES_A_GROUP = 2
"""After so many lost calls of one reward in one group the rest of that group is not tried any more."""
_CHUNK = 64
"""Samples that travel in one request."""


class _Scored(NamedTuple):
    scores: list[Score]
    metrics: dict[str, list[float]]
    printed: str


class RewardPool:
    """Processes that hold the rewards of a run, warm. Close it, or use it in a `with`."""

    def __init__(
        self,
        sources: Sequence[RewardSource],
        workers: int = 1,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        reward_clip: float | None = None,
        max_steps: int = 0,
        max_length: int | None = None,
    ) -> None:
        """Does not wait until the processes are ready.

        timeout: seconds for one call: of one sample, or of one group for rewards that take groups or lists.
        max_steps, max_length: facts of the run for rewards that ask (`trainer_state`, `max_length`).
        """
        self._sources = tuple(sources)
        self._facts = RunFacts(timeout, max_steps, max_length)
        self._clip = reward_clip
        self._workers = workers
        self._tokens = any(source.shape.wants_tokens for source in sources)
        self._idle: queue.SimpleQueue[RewardProcess | None] = queue.SimpleQueue()
        self._alive: set[RewardProcess] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="rewards")
        self.error_rate: dict[str, float] = {}
        """For each reward the share of values lost to errors in the last `score`."""
        self.metrics: dict[str, float] = {}
        """Means of what rewards sent to `log_metric` in the last `score`."""
        self.printed = ""
        """The end of what rewards printed in the last `score`."""
        for _ in range(workers):
            self._idle.put(self._start())

    def score(
        self, groups: Sequence[Group], step: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> list[Score]:
        """One score a sample, group after group. `progress(done, total)` counts samples, after each group.

        Raises RewardError where a reward cannot be loaded; everything that a reward does later is in the
        scores.
        """
        return self.score_wire(wire.of_groups(groups, self._tokens), step, progress)

    def score_wire(
        self, groups: Sequence[WireGroup], step: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> list[Score]:
        """`score` for plain groups."""
        total = sum(len(group["completions"]) for group in groups)
        futures = [
            self._threads.submit(self._score_chunk, chunk, step) for chunk in self._chunks(groups, total)
        ]
        scores: list[Score] = []
        metrics: dict[str, list[float]] = {}
        printed = ""
        try:
            for future in futures:
                scored = future.result()
                scores += scored.scores
                printed = (printed + scored.printed)[-2000:]
                for name, values in scored.metrics.items():
                    metrics.setdefault(name, []).extend(values)
                if progress is not None:
                    progress(len(scores), total)
        finally:
            for future in futures:
                future.cancel()
        self.error_rate = error_share(scores)
        self.metrics = {name: sum(values) / len(values) for name, values in metrics.items()}
        self.printed = printed
        return scores

    def submit(self, group: Group, step: int = 0) -> Future[list[Score]]:
        """Score one group in the background, so that a slow reward overlaps with generation."""
        (plain,) = wire.of_groups([group], self._tokens)
        return self._threads.submit(lambda: self._score_chunk([plain], step).scores)

    @property
    def pids(self) -> set[int]:
        """Of the processes that are alive."""
        with self._lock:
            return {process.pid for process in self._alive}

    def close(self) -> None:
        """End all processes, whatever they are doing. Calls that wait get a RewardError."""
        with self._lock:
            self._closed = True
            alive = list(self._alive)
        for process in alive:
            process.kill()
        idle: list[RewardProcess | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for waiting in idle:
            self._put_back(waiting)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> RewardProcess:
        process = RewardProcess([source.description() for source in self._sources], self._facts)
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

    def _chunks(self, groups: Sequence[WireGroup], total: int) -> Iterator[list[WireGroup]]:
        """Whole groups, so many that a request is worth its way and every process has some."""
        share = min(_CHUNK, max(1, total // self._workers))
        chunk: list[WireGroup] = []
        for group in groups:
            chunk.append(group)
            if sum(len(item["completions"]) for item in chunk) >= share:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _score_chunk(self, groups: Sequence[WireGroup], step: int) -> _Scored:
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
                    self._give_up(culprit, pending, losses[culprit[:2]], groups, loss, answers)
                    pending = [call for call in pending if call not in answers]
        except BaseException:
            if process is not None:
                self._forget(process)
            process = None  # the next chunk starts a fresh one
            raise
        finally:
            self._put_back(process)
        return self._combine(groups, answers)

    def _ask(
        self,
        process: RewardProcess,
        groups: Sequence[WireGroup],
        calls: Sequence[Call],
        step: int,
        answers: dict[Call, Answer],
    ) -> None:
        """Fill `answers` call by call. Raises Lost with those that came before it in place."""
        process.ask(groups, calls, step)
        for call in calls:
            grace = _ASYNC_GRACE if self._sources[call[1]].shape.is_async else 0.0
            answers[call] = process.answer(self._facts.timeout + grace)

    def _give_up(
        self,
        culprit: Call,
        pending: Sequence[Call],
        losses: int,
        groups: Sequence[WireGroup],
        loss: Lost,
        answers: dict[Call, Answer],
    ) -> None:
        """No value for a lost call; after several in one group none for the rest of that reward there."""
        reason = self._why(loss, culprit[1])
        answers[culprit] = self._nothing(culprit, groups, reason)
        if losses >= _LOSSES_A_GROUP:
            untried = f"Not tried, after {losses} lost calls in this group. {reason}"
            for call in pending:
                if call[:2] == culprit[:2] and call != culprit:
                    answers[call] = self._nothing(call, groups, untried)

    def _calls(self, groups: Sequence[WireGroup]) -> Iterator[Call]:
        for place, group in enumerate(groups):
            for which, source in enumerate(self._sources):
                if source.shape.kind == "sample" and not source.shape.is_async:
                    for index in range(len(group["completions"])):
                        yield place, which, index
                else:
                    yield place, which, None

    def _why(self, loss: Lost, which: int) -> str:
        source = self._sources[which]
        origin = Origin(
            f"The reward {source.name}" if source.ours else "Your reward", source.file, source.path
        )
        if isinstance(loss, TooLate):
            at = f" {origin.quoted(loss.where[1])}" if loss.where and loss.where[0] == source.path else ""
            return too_late(self._facts.timeout) + at
        how = loss.how if isinstance(loss, Ended) else str(loss)
        return f"{origin.who} ended its own process ({how}), twice. {origin.at(source.shape.line)}"

    @staticmethod
    def _nothing(call: Call, groups: Sequence[WireGroup], reason: str) -> Answer:
        count = 1 if call[2] is not None else len(groups[call[0]]["completions"])
        return Answer(values=[None] * count, reasons=[reason] * count)

    def _combine(self, groups: Sequence[WireGroup], answers: dict[Call, Answer]) -> _Scored:
        """Answers of calls turned into one score a sample."""
        sizes = [len(group["completions"]) for group in groups]
        firsts = [sum(sizes[:place]) for place in range(len(sizes))]
        values: list[dict[str, float | None]] = [{} for _ in range(sum(sizes))]
        reasons: list[dict[str, str]] = [{} for _ in values]
        logs: list[dict[str, Any]] = [{} for _ in values]
        metrics: dict[str, list[float]] = {}
        printed = ""
        for (place, which, index), answer in answers.items():
            name = self._sources[which].name
            indices = range(sizes[place]) if index is None else (index,)
            for item, index_in_group in enumerate(indices):
                sample = firsts[place] + index_in_group
                values[sample][name] = answer["values"][item]
                if answer["values"][item] is None:
                    reasons[sample][name] = answer["reasons"][item]
                for column, logged in answer.get("logs", {}).items():
                    logs[sample][column] = logged[item]
            for metric, numbers in answer.get("metrics", {}).items():
                metrics.setdefault(metric, []).extend(numbers)
            printed += answer.get("printed", "")
        scores = [
            Score(values=value, reasons=reason, reward=self._total(value), logs=log)
            for value, reason, log in zip(values, reasons, logs, strict=True)
        ]
        return _Scored(scores, metrics, printed)

    def _total(self, values: dict[str, float | None]) -> float | None:
        total = weighted(values, self._sources)
        if total is None or self._clip is None:
            return total
        return max(-self._clip, min(self._clip, total))


def weighted(values: dict[str, float | None], sources: Iterable[RewardSource]) -> float | None:
    """Sum of weight x value over the enabled rewards that have one; None where none has. An absent reward is
    not zero.
    """
    parts = [
        source.weight * value
        for source in sources
        if source.enabled and (value := values.get(source.name)) is not None
    ]
    return sum(parts) if parts else None


def error_share(scores: Sequence[Score]) -> dict[str, float]:
    """For each reward the share of samples without a value for another reason than that the reward chose
    None.
    """
    return _share(scores, lambda reason: reason != NOT_APPLICABLE)


def infrastructure_share(scores: Sequence[Score]) -> dict[str, float]:
    """For each reward the share of samples lost to a failure that is neither the model's nor the reward's."""
    return _share(scores, lambda reason: reason.startswith(INFRASTRUCTURE))


def _share(scores: Sequence[Score], counts: Callable[[str], bool]) -> dict[str, float]:
    names = dict.fromkeys(name for score in scores for name in score.values)
    return {
        name: sum(name in score.reasons and counts(score.reasons[name]) for score in scores) / len(scores)
        for name in names
    }
