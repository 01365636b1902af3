"""Scoring in processes that can be killed.

In: groups of answers. Out: a `Score` for each sample, in flat sample order, the same at any number of
processes. Plain rewards share their processes; rewards that hold a model have one of their own.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from workbench.core.errors import RewardError
from workbench.core.types import Group, Score
from workbench.rewards.api import reward_input
from workbench.rewards.api.outcome import INFRASTRUCTURE, is_failure
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.runtime.process import RewardProcess
from workbench.rewards.runtime.registry import DEFAULT_TIMEOUT, RewardSource
from workbench.rewards.runtime.runner import RunFacts
from workbench.rewards.runtime.worker_group import PartialScore, Starter, WorkerGroup, WorkerResult

Result = TypeVar("Result")
Recorded = Callable[[int, RewardInput, Collection[str]], list[PartialScore] | None]
"""What rewards of these names said about a group in a step before, sample by sample; None where that is not known."""
Submitted = Mapping[int, list[Future[WorkerResult]]]
"""What `RewardPool.begin` gave for some groups of a step, by place."""
_CHUNK = 64
"""Samples that travel in one request."""
_PRINTED = 2000
_AHEAD = 256
"""Requests that wait while their results are not taken: enough to keep every process busy."""


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
        recorded: Recorded | None = None,
        starter: Starter = RewardProcess,
    ) -> None:
        """Does not wait until the processes are ready.

        timeout: seconds for one call: of one sample, or of one group for rewards that take groups or lists.
        max_steps, max_length: facts of the run for rewards that ask (`trainer_state`, `max_length`).
        recorded: asked first for rewards that ask somebody outside, who might answer differently the second time.
        """
        if not sources:
            raise RewardError("No rewards were given. Give at least one, for example correct.")
        self._sources = tuple(sources)
        self._clip = reward_clip
        self._workers = workers
        self.wants_tokens = any(source.shape.wants_tokens for source in sources)
        """Whether token ids must be sent to some reward."""
        facts = RunFacts(timeout, max_steps, max_length=max_length)
        self._recorded = recorded
        shared = [source for source in sources if not source.shape.alone]
        parts = [
            [source for source in shared if source.shape.asks_outside is outside] for outside in (False, True)
        ]
        self._crews = [WorkerGroup(part, facts, workers, starter) for part in parts if part]
        self._crews += [WorkerGroup([source], facts, 1, starter) for source in sources if source.shape.alone]
        self.error_rate: dict[str, float] = {}
        """For each reward the share of values lost to errors in the last `score`."""
        self.metrics: dict[str, float] = {}
        """Means of what rewards sent to `log_metric` in the last `score`."""
        self.printed = ""
        """The end of what rewards printed in the last `score`."""

    def score(
        self,
        groups: Sequence[Group],
        step: int = 0,
        progress: Callable[[int, int], None] | None = None,
        *,
        ratings: reward_input.Ratings | None = None,
    ) -> list[Score]:
        """One score a sample, group after group. `progress(done, total)` counts samples; `ratings`: what people
        said, for rewards that ask for it.

        Raises RewardError where a reward cannot be loaded; everything that a reward does later is in the
        scores.
        """
        return self.score_inputs(reward_input.of_groups(groups, self.wants_tokens, ratings), step, progress)

    def score_inputs(
        self,
        groups: Sequence[RewardInput],
        step: int = 0,
        progress: Callable[[int, int], None] | None = None,
        submitted: Submitted | None = None,
    ) -> list[Score]:
        """`score` for plain groups; `submitted`: those whose scoring has begun."""
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

        What is asked runs a little ahead of what is taken. `error_rate`, `metrics` and `printed` are those of
        all that was taken. `submitted`: groups of a single step whose scoring has begun.
        """
        told = _Told(self)
        asked: deque[list[Future[WorkerResult]]] = deque()
        try:
            for step, groups in steps:
                for futures in self._requests(groups, step, submitted or {}):
                    asked.append(futures)
                    if len(asked) > _AHEAD:
                        yield told.take(asked.popleft())
            while asked:
                yield told.take(asked.popleft())
        finally:
            for futures in asked:
                for future in futures:
                    future.cancel()
            told.done()

    def submit(self, groups: list[RewardInput], step: int = 0) -> list[Future[WorkerResult]]:
        """Score groups in the background, so that a slow reward overlaps with generation; for `score_inputs`."""
        return [self._submit_to(crew, groups, step) for crew in self._crews]

    @property
    def pids(self) -> set[int]:
        """Of the processes that are alive."""
        return {pid for crew in self._crews for pid in crew.pids}

    def close(self) -> None:
        """End all processes, whatever they are doing. Calls that wait get a RewardError."""
        for crew in self._crews:
            crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit_to(self, crew: WorkerGroup, groups: list[RewardInput], step: int) -> Future[WorkerResult]:
        """Ask a crew about groups, but for what is known of them already."""
        if self._recorded is None or not crew.asks_outside:
            return crew.submit(groups, step)
        known = {place: self._recorded(step, group, crew.names) for place, group in enumerate(groups)}
        rest = [group for place, group in enumerate(groups) if known[place] is None]
        asked = crew.submit(rest, step) if rest else _done(WorkerResult([], {}, ""))

        def merge(said: list[WorkerResult]) -> WorkerResult:
            parts = iter(said[0].parts)
            merged = [
                part
                for place, group in enumerate(groups)
                for part in (known[place] or [next(parts) for _ in group["completions"]])
            ]
            return said[0]._replace(parts=merged)

        return _joined([asked], merge)

    def _requests(
        self, groups: Sequence[RewardInput], step: int, submitted: Submitted
    ) -> Iterator[list[Future[WorkerResult]]]:
        """Whole groups, so many that a request is worth its way and every process has some."""
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

    def merged(self, said: Sequence[WorkerResult]) -> list[Score]:
        """One score a sample from what every crew says about it."""
        scores = []
        for parts in zip(*(one.parts for one in said), strict=True):
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


class _Told:
    """What a stream has said so far, beside the scores."""

    def __init__(self, pool: RewardPool) -> None:
        self._pool = pool
        self._failed: Counter[str] = Counter()
        self._count = 0
        self._metrics: dict[str, list[float]] = {}
        self._printed = ""

    def take(self, futures: Sequence[Future[WorkerResult]]) -> list[Score]:
        """The scores of one chunk."""
        said = [future.result() for future in futures]
        scores = self._pool.merged(said)
        for one in said:
            self._printed = (self._printed + one.printed)[-_PRINTED:]
            for name, values in one.metrics.items():
                self._metrics.setdefault(name, []).extend(values)
        self._count += len(scores)
        for name, share in error_share(scores).items():
            self._failed[name] += round(share * len(scores))
        return scores

    def done(self) -> None:
        """Leave the figures with the pool."""
        self._pool.error_rate = {name: failed / self._count for name, failed in self._failed.items()}
        self._pool.metrics = {name: sum(values) / len(values) for name, values in self._metrics.items()}
        self._pool.printed = self._printed


def _done(said: WorkerResult) -> Future[WorkerResult]:
    done: Future[WorkerResult] = Future()
    done.set_result(said)
    return done


def _joined(
    futures: Sequence[Future[WorkerResult]], combine: Callable[[list[WorkerResult]], Result]
) -> Future[Result]:
    """A future of what all of them say."""
    joined: Future[Result] = Future()
    joined.set_running_or_notify_cancel()
    left = itertools.count(len(futures) - 1, -1)

    def look(_: Future[WorkerResult]) -> None:
        if next(left) == 0:  # the last one, whichever it is
            try:
                joined.set_result(combine([future.result() for future in futures]))
            except BaseException as error:
                joined.set_exception(error)

    for future in futures:
        future.add_done_callback(look)
    return joined


def weighted(values: dict[str, float | None], sources: Iterable[RewardSource]) -> float | None:
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
