"""Scoring in processes that can be killed.

In: groups of completions. Out: a `Score` for each sample, in flat sample order, the same at any number of processes. Rewards that
compute, and rewards that ask a server or a person, share the processes of one worker group each; a reward that holds a model has
a process of its own.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from workbench.core.errors import RewardError
from workbench.core.types import Group, Score
from workbench.rewards.api import reward_input
from workbench.rewards.api.outcome import INFRASTRUCTURE, is_failure
from workbench.rewards.api.reward_input import Ratings, RewardInput
from workbench.rewards.runtime.messages import RunFacts
from workbench.rewards.runtime.process import RewardProcess
from workbench.rewards.runtime.registry import DEFAULT_TIMEOUT, RewardSource
from workbench.rewards.runtime.worker_group import Starter, WorkerGroup, WorkerResult

Recorded = Callable[[int, RewardInput, Collection[str]], list[Score] | None]
"""(step, group, names of rewards) -> the values that these rewards gave in an earlier attempt, sample by sample, or None."""
Submitted = Mapping[int, Sequence[Future[WorkerResult]]]
"""What `RewardPool.submit` returned for single groups of a step, by place."""
_CHUNK = 64
"""Samples that travel in one request."""
_PRINTED = 2000
_AHEAD = 256
"""Requests that may wait while their results are not taken: enough to keep every process busy."""


class RewardPool:
    """Processes that stay loaded with the rewards of a run. Close it, or use it in a `with`."""

    def __init__(
        self,
        sources: Sequence[RewardSource],
        workers: int = 1,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        reward_clip: float | None = None,
        max_steps: int = 0,
        max_length: int | None = None,
        recorded: Recorded | None = None,
        starter: Starter = RewardProcess,
    ) -> None:
        """Does not wait until the processes are ready.

        timeout: seconds for one call: of one sample, or of one group for rewards that take groups or lists.
        max_steps, max_length: facts of the run for rewards that ask (`trainer_state`, `max_length`).
        recorded: replaces calls of rewards that ask a server or a person, which might give other values the second time.
        """
        if not sources:
            raise RewardError("No rewards were given. Give at least one, for example correct.")
        self._sources = tuple(sources)
        self._clip = reward_clip
        self._workers = workers
        self.wants_tokens = any(source.shape.wants_tokens for source in sources)
        """Whether token ids must be sent to some reward."""
        self._recorded = recorded
        facts = RunFacts(timeout, max_steps, max_length=max_length)
        shared = [source for source in sources if not source.shape.alone]
        parts = [
            [source for source in shared if source.shape.is_external is external]
            for external in (False, True)
        ]
        self._groups = [WorkerGroup(part, facts, workers, starter) for part in parts if part]
        self._groups += [WorkerGroup([source], facts, 1, starter) for source in sources if source.shape.alone]
        self.error_rate: dict[str, float] = {}
        """For each reward the share of values lost to errors in the last `score`."""
        self.metrics: dict[str, float] = {}
        """Means of the numbers that rewards gave to `log_metric` in the last `score`."""
        self.printed = ""
        """The end of what rewards printed in the last `score`."""

    def score(
        self,
        groups: Sequence[Group],
        step: int = 0,
        progress: Callable[[int, int], None] | None = None,
        *,
        ratings: Ratings | None = None,
    ) -> list[Score]:
        """One score a sample, group after group. `progress(done, total)` counts samples; `ratings`: of people, for rewards that
        ask for them.

        Raises RewardError where a reward cannot be loaded; everything that a reward does later is in the scores.
        """
        return self.score_inputs(reward_input.of_groups(groups, self.wants_tokens, ratings), step, progress)

    def score_inputs(
        self,
        groups: Sequence[RewardInput],
        step: int = 0,
        progress: Callable[[int, int], None] | None = None,
        submitted: Submitted | None = None,
    ) -> list[Score]:
        """`score` for inputs at hand; `submitted`: groups whose scoring has begun."""
        scores: list[Score] = []
        total = sum(len(group["completions"]) for group in groups)
        for part in self.stream([(step, groups)], submitted):
            scores += part
            if progress is not None:
                progress(len(scores), total)
        return scores

    def stream(
        self, steps: Iterable[tuple[int, Sequence[RewardInput]]], submitted: Submitted | None = None
    ) -> Iterator[list[Score]]:
        """Scores of several steps, in order, some samples at a time as soon as they are there.

        Requests run a little ahead of the scores that are taken. `error_rate`, `metrics` and `printed` are those of all scores
        that were taken. `submitted`: groups of a single step whose scoring has begun.
        """
        totals = _Totals(self)
        waiting: deque[Sequence[Future[WorkerResult]]] = deque()
        try:
            for step, groups in steps:
                for futures in self._requests(groups, step, submitted or {}):
                    waiting.append(futures)
                    if len(waiting) > _AHEAD:
                        yield totals.take(waiting.popleft())
            while waiting:
                yield totals.take(waiting.popleft())
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
            totals.publish()

    def submit(self, groups: Sequence[RewardInput], step: int = 0) -> list[Future[WorkerResult]]:
        """Score groups in the background, so that a slow reward overlaps with generation; for `score_inputs`."""
        return [
            workers.submit(groups, step, [self._recorded(step, group, workers.names) for group in groups])
            if self._recorded is not None and workers.is_external
            else workers.submit(groups, step)
            for workers in self._groups
        ]

    @property
    def pids(self) -> set[int]:
        """Of the processes that are alive."""
        return {pid for workers in self._groups for pid in workers.pids}

    def close(self) -> None:
        """End all processes, whatever they are doing. Calls that wait get a RewardError."""
        for workers in self._groups:
            workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _requests(
        self, groups: Sequence[RewardInput], step: int, submitted: Submitted
    ) -> Iterator[Sequence[Future[WorkerResult]]]:
        """Whole groups, so many that a request is worth its overhead and every process has some."""
        total = sum(len(group["completions"]) for group in groups)
        share = min(_CHUNK, max(1, total // self._workers))
        chunk: list[RewardInput] = []
        for place, group in enumerate(groups):
            early = submitted.get(place)
            if early is None:
                chunk.append(group)
            if chunk and (early or sum(len(item["completions"]) for item in chunk) >= share):
                yield self.submit(chunk, step)
                chunk = []
            if early:
                yield early
        if chunk:
            yield self.submit(chunk, step)

    def merged(self, results: Sequence[WorkerResult]) -> list[Score]:
        """One score a sample from the results of all worker groups."""
        scores = []
        for parts in zip(*(result.scores for result in results), strict=True):
            found: dict[str, float | None] = {}
            reasons: dict[str, str] = {}
            logs: dict[str, Any] = {}
            for part in parts:
                found |= part.values
                reasons |= part.reasons
                logs |= part.logs
            values = {source.name: found[source.name] for source in self._sources}
            total = weighted(values, self._sources)
            if total is not None and self._clip is not None:
                total = max(-self._clip, min(self._clip, total))
            scores.append(Score(values=values, reasons=reasons, reward=total, logs=logs))
        return scores


class _Totals:
    """What a stream gives beside its scores."""

    def __init__(self, pool: RewardPool) -> None:
        self._pool = pool
        self._failed: Counter[str] = Counter()
        self._count = 0
        self._metrics: dict[str, list[float]] = {}
        self._printed = ""

    def take(self, futures: Sequence[Future[WorkerResult]]) -> list[Score]:
        """The scores of one request to each worker group."""
        results = [future.result() for future in futures]
        scores = self._pool.merged(results)
        for result in results:
            self._printed = (self._printed + result.printed)[-_PRINTED:]
            for name, values in result.metrics.items():
                self._metrics.setdefault(name, []).extend(values)
        self._count += len(scores)
        for name, share in error_share(scores).items():
            self._failed[name] += round(share * len(scores))
        return scores

    def publish(self) -> None:
        """Set the pool's figures."""
        self._pool.error_rate = {name: failed / self._count for name, failed in self._failed.items()}
        self._pool.metrics = {name: sum(values) / len(values) for name, values in self._metrics.items()}
        self._pool.printed = self._printed


def weighted(values: Mapping[str, float | None], sources: Iterable[RewardSource]) -> float | None:
    """Sum of weight x value over the enabled rewards that have one; None where none has.

    An absent reward is not zero.
    """
    parts = [
        source.weight * value
        for source in sources
        if source.enabled and (value := values.get(source.name)) is not None
    ]
    return sum(parts) if parts else None


def error_share(scores: Sequence[Score]) -> dict[str, float]:
    """For each reward the share of samples without a value, unless the reward itself chose None."""
    return _share(scores, is_failure)


def infrastructure_share(scores: Sequence[Score]) -> dict[str, float]:
    """For each reward the share of samples lost to a failure that is neither the model's nor the reward's."""
    return _share(scores, lambda reason: reason.startswith(INFRASTRUCTURE))


def _share(scores: Sequence[Score], counts: Callable[[str], bool]) -> dict[str, float]:
    names = dict.fromkeys(name for score in scores for name in score.values)
    return {
        name: sum(name in score.reasons and counts(score.reasons[name]) for score in scores) / len(scores)
        for name in names
    }
