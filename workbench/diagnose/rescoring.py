"""Recorded completions scored again by other rewards. No model, no torch, no pandas.

In: a run's record, and rewards in any form that a run takes. Out: old and new reward and advantage of every
completion, as a stream or all at once, and a summary of the changes.
"""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import RewardError, RunError
from workbench.core.types import EvalMode, GroupKind, Score
from workbench.record import notes
from workbench.record.notes import Notes
from workbench.record.reader import Reader
from workbench.rewards import trial
from workbench.rewards.api.reward_input import Ratings, RewardInput
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.pool import RewardPool, error_share
from workbench.rewards.runtime.registry import DEFAULT_TIMEOUT, RewardSource
from workbench.rewards.trial import AnyReward

if TYPE_CHECKING:
    import pandas

Json = dict[str, Any]
Floats = NDArray[np.float64]
Rewards = Mapping[Any, float] | Iterable[AnyReward | RewardSpec] | AnyReward | RewardSpec
"""One or several: names (`correct`, `correct=0.5`, `file.py:name`), source text, functions, specs; with
weights as a mapping."""
WORKERS = 2


class Part(NamedTuple):
    """Some groups whose completions have been scored again."""

    groups: list[Json]
    """As `Reader.completions` gives them."""
    scores: list[Score]
    """Of their completions, flat, in order."""


class Rescored:
    """All chosen completions of a run with their old and new rewards. (B,) arrays have one entry a completion."""

    def __init__(self, parts: Iterable[Part], sources: Sequence[RewardSource], config: RunConfig) -> None:
        started = time.perf_counter()
        self.config = config
        self.sources = tuple(sources)
        self.groups: list[Json] = []
        self.scores: list[Score] = []
        for part in parts:
            self.groups += part.groups
            self.scores += part.scores
        if not self.scores:
            raise RunError(
                "There are no recorded samples in that part of the run, so nothing to score again."
            )
        sizes_P = [len(group["texts"]) for group in self.groups]
        self.group_B = np.repeat(np.arange(len(self.groups)), sizes_P)
        """(B,) index in `groups` of each completion's group."""
        self.step_B = np.repeat([group["step"] for group in self.groups], sizes_P)
        self.index_B = np.concatenate([np.arange(size) for size in sizes_P])
        self.cut_B = np.array(
            [reason == "length" for group in self.groups for reason in group["finish_reasons"]]
        )
        self.old_B = _floats(value for group in self.groups for value in group["rewards"])
        self.new_B = _floats(score.reward for score in self.scores)
        self.values_B = {
            source.name: _floats(score.values[source.name] for score in self.scores) for source in sources
        }
        """New (B,) values of each single reward."""
        recorded_B = _floats(value for group in self.groups for value in group["advantages"])
        # Evaluations have no recorded advantages: compute them from the old rewards as from the new ones.
        self.old_advantage_B = (
            self._advantages(self.old_B[:, None], np.ones(1)) if np.isnan(recorded_B).all() else recorded_B
        )
        self.new_advantage_B = self._new_advantages()
        self.seconds = time.perf_counter() - started

    @cached_property
    def flip_B(self) -> NDArray[np.bool_]:
        """(B,) whether old and new advantage have opposite signs."""
        return self.old_advantage_B * self.new_advantage_B < 0

    @cached_property
    def old_place_B(self) -> NDArray[np.int64]:
        """(B,) place in the group by the old reward, 1 the best, the same for equal rewards; 0 without a reward."""
        return _places(self.old_B, self.group_B)

    @cached_property
    def new_place_B(self) -> NDArray[np.int64]:
        """The same by the new reward."""
        return _places(self.new_B, self.group_B)

    def summary(self) -> Json:
        """The change in counts. A group's winner flips where no completion that was best is best any more; a group
        without reward spread (`dead`) has no winner."""
        tied_before, tied_after = _zero_std(self.old_B, self.group_B), _zero_std(self.new_B, self.group_B)
        spread_P = ~tied_before & ~tied_after
        both_B = (self.old_place_B == 1) & (self.new_place_B == 1)
        still_P = np.bincount(self.group_B[both_B], minlength=len(self.groups)) > 0
        same_B = np.isclose(self.old_B, self.new_B, rtol=0, atol=1e-9, equal_nan=True)
        return {
            "samples": len(self.scores),
            "groups": len(self.groups),
            "changed": int((~same_B).sum()),
            "advantage_flips": int(self.flip_B.sum()),
            "winner_flips": int((spread_P & ~still_P).sum()),
            "dead_before": int(tied_before.sum()),
            "dead_after": int(tied_after.sum()),
            "failed": self.failed(),
            "seconds": round(self.seconds, 3),
        }

    def frame(self) -> "pandas.DataFrame":
        """One row a completion; see `api.rescore`."""
        import pandas as pd  # noqa: PLC0415 (only notebooks pay for it)

        mine = [self.groups[place] for place in self.group_B]
        named = ("step", "k", "prompt_id", "question", "answer")
        frame = pd.DataFrame(
            {
                **{name: [group[name] for group in mine] for name in named},
                "i": self.index_B,
                "text": [text for group in self.groups for text in group["texts"]],
                "reward": self.old_B,
                "new_reward": self.new_B,
                **{f"rewards/{name}": values_B for name, values_B in self.values_B.items()},
                "advantage": self.old_advantage_B,
                "new_advantage": self.new_advantage_B,
                "place": self.old_place_B,
                "new_place": self.new_place_B,
                "flip": self.flip_B,
                "reason": ["; ".join(dict.fromkeys(score.reasons.values())) for score in self.scores],
            }
        )
        frame.attrs["summary"] = self.summary()
        return frame

    def failed(self) -> dict[str, int]:
        """Number of completions that each reward failed on."""
        return {name: round(share * len(self.scores)) for name, share in error_share(self.scores).items()}

    def _new_advantages(self) -> Floats:
        config = self.config
        if config.multi_objective_aggregation == "sum_then_normalize":
            return self._advantages(self.new_B[:, None], np.ones(1))  # already clipped by the pool
        counted = [source for source in self.sources if source.enabled and source.weight]
        columns = [np.where(np.isnan(self.new_B), np.nan, self.values_B[one.name]) for one in counted]
        return self._advantages(np.stack(columns, axis=1), np.array([one.weight for one in counted]))

    def _advantages(self, rewards_B_F: Floats, weights_F: Floats) -> Floats:
        config = self.config
        alone = config.scale_rewards != "batch" and config.multi_objective_aggregation == "sum_then_normalize"
        # Where an advantage depends on its group alone, one call does for all steps.
        batches = [np.arange(len(rewards_B_F))] if alone else _runs(self.step_B)
        found_B = np.zeros(len(rewards_B_F))
        for rows in batches:
            found_B[rows] = advantages.from_rewards(
                rewards_B_F[rows],
                weights_F,
                self.group_B[rows],
                aggregation=config.multi_objective_aggregation,
                scale=config.scale_rewards,
                std=config.advantage_std,
                eps=config.advantage_eps,
                baseline=config.advantage_baseline,
                excluded_B=self.cut_B[rows] if config.mask_truncated_completions else None,
            ).advantages_B
        return found_B


def rescore(
    run: Reader,
    rewards: Rewards,
    *,
    since: int | None = None,
    until: int | None = None,
    kind: GroupKind = "train",
    mode: EvalMode | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = WORKERS,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Callable[[int], None] | None = None,
) -> Rescored:
    """Scores the completions of steps `since` to `until` again with these rewards alone. `progress` is called with the
    number done. Raises RewardError where a reward cannot be loaded, RunError where nothing is recorded."""
    with prepared(run, rewards, options) as sources:
        parts = stream(
            run, sources, since=since, until=until, kind=kind, mode=mode, workers=workers, timeout=timeout
        )
        return Rescored(_counted(parts, progress), sources, run.config)


def stream(
    run: Reader,
    sources: Sequence[RewardSource],
    *,
    since: int | None = None,
    until: int | None = None,
    kind: GroupKind = "train",
    mode: EvalMode | None = None,
    only: Collection[str] | None = None,
    workers: int = WORKERS,
    timeout: float = DEFAULT_TIMEOUT,
) -> Iterator[Part]:
    """Completions scored again, some groups at a time as they finish; `only`: of these prompt ids."""
    config = run.config
    wants_tokens = any(source.shape.wants_tokens for source in sources)
    wants_ratings = any(source.shape.wants_ratings for source in sources)
    ratings = notes.values(Notes(run.folder).ratings()) if wants_ratings else {}
    waiting: deque[Json] = deque()

    def batches() -> Iterator[tuple[int, list[RewardInput]]]:
        batch: list[Json] = []
        for group in run.completions(since, until, kind, mode, tokens=wants_tokens):
            if only is not None and group["prompt_id"] not in only:
                continue
            if batch and (group["step"], group["mode"]) != (batch[0]["step"], batch[0]["mode"]):
                yield batch[0]["step"], [as_reward_input(one, ratings) for one in batch]
                batch = []
            batch.append(group)
            waiting.append(group)
        if batch:
            yield batch[0]["step"], [as_reward_input(one, ratings) for one in batch]

    with RewardPool(
        sources,
        workers,
        timeout,
        reward_clip=config.reward_clip,
        max_steps=config.steps,
        max_length=config.max_completion_length,
    ) as pool:
        for scores in pool.stream(batches()):
            groups: list[Json] = []
            left = len(scores)
            while left:
                groups.append(waiting.popleft())
                left -= len(groups[-1]["texts"])
            yield Part(groups, scores)


@contextmanager
def prepared(
    run: Reader, rewards: Rewards, options: Mapping[str, Any] | None = None
) -> Iterator[list[RewardSource]]:
    """Reward sources in a temporary folder, checked against the columns of this run's data. Raises RewardError."""
    specs, texts = [], []
    for item, weight in _pairs(rewards):
        if isinstance(item, str) and not trial.is_code(item):
            item = _named(item)
        spec = item if isinstance(item, RewardSpec) else None
        texts.append(registry.find(spec.name) if spec else trial.text_of(item))
        spec = spec or RewardSpec(name=texts[-1].function)
        change = {"options": {**spec.options, **options}} if options else {}
        specs.append(
            spec.model_copy(update={**change, "weight": spec.weight if weight is None else float(weight)})
        )
    first = next(iter(run.completions()), None) or next(iter(run.completions(kind="eval")), None)
    columns = None if first is None else set(first["columns"])
    with tempfile.TemporaryDirectory(prefix="workbench-reward-") as folder:
        yield registry.save_checked(specs, texts, Path(folder), columns)


def as_reward_input(group: Json, ratings: Ratings | None = None) -> RewardInput:
    """A recorded group (`Reader.completions`) as rewards get it."""
    rated = ratings or {}
    return RewardInput(
        id=group["prompt_id"],
        prompt=group["question"],
        rendered=group["prompt"],
        answer=group["answer"],
        columns=group["columns"],
        completions=group["texts"],
        tokens=group["tokens"],
        lengths=group["lengths"],
        finish_reasons=group["finish_reasons"],
        ratings=[rated.get((group["prompt_id"], text)) for text in group["texts"]],
    )


def _pairs(rewards: Rewards) -> list[tuple[Any, float | None]]:
    if isinstance(rewards, Mapping):
        return list(rewards.items())
    if isinstance(rewards, Iterable) and not isinstance(rewards, str | RewardSpec | tuple):
        return [(item, None) for item in rewards]
    return [(rewards, None)]


def _named(text: str) -> RewardSpec:
    try:
        return RewardSpec.parse(text)
    except ValueError as error:
        raise RewardError(str(error)) from None


def _counted(parts: Iterable[Part], progress: Callable[[int], None] | None) -> Iterator[Part]:
    done = 0
    for part in parts:
        done += len(part.scores)
        if progress is not None:
            progress(done)
        yield part


def _floats(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _runs(values_B: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Row indices of each run of equal neighbours."""
    return np.split(np.arange(len(values_B)), np.flatnonzero(np.diff(values_B)) + 1)


def _zero_std(rewards_B: Floats, group_B: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(advantages.compute(rewards_B, group_B).zero_std_P)


def _places(rewards_B: Floats, group_B: NDArray[np.int64]) -> NDArray[np.int64]:
    places_B = np.zeros(len(rewards_B), dtype=np.int64)
    for rows in _runs(group_B):
        mine = rewards_B[rows]
        known = np.isfinite(mine)
        better = (mine[known][None, :] > mine[known][:, None] + 1e-9).sum(axis=1)
        places_B[rows[known]] = 1 + better
    return places_B
