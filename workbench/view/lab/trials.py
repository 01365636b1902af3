"""Trials of reward code: score samples, compare with an earlier reward, forecast, attack. Scores of the same code are cached.

In: code with weights, samples, what to compare with. Out: JSON messages, the first as soon as one group is scored. The code runs in
killable processes; a call that hangs or ends its process stops the trial with a reason.
"""

import dataclasses
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from workbench.algorithm import advantages
from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError, RunError, WorkbenchError
from workbench.rewards import attacks
from workbench.rewards.api import reward_input, source
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.runtime import worker_group
from workbench.rewards.runtime.process_cache import LoadedRewards, ProcessCache
from workbench.rewards.trial import guesses
from workbench.view.common.run_store import RunStore
from workbench.view.lab import reward_source, trial_json, trial_samples
from workbench.view.lab.drafts import CODE_FILE, Drafts, RewardCode, RewardPart
from workbench.view.lab.trial_arrays import RECORDED, Scored, Tally, Trial, padded, total
from workbench.view.lab.trial_samples import Choice, TrialSamples

SECONDS = 2.0
"""Timeout of one reward call; shorter than a run's own, as a user waits here."""
LOAD_SECONDS = 15.0
REPEATED = 96
"""Samples that are scored twice, to test whether the reward is deterministic."""
ATTACKED = 8
"""Prompts that attacks are tried on, evenly spread over all."""
MAX_KEPT = 12
MAX_KEPT_RUNS = 3
_SLICES = (1, 4, 16, 64)
"""Groups scored between two progress messages; the last number repeats."""
Json = dict[str, Any]
Hold = Callable[[LoadedRewards | None], None]


class TryBody(BaseModel):
    """What to score, on which samples, compared with what."""

    model_config = ConfigDict(extra="forbid")
    written: RewardCode
    on: Choice
    against: int | None = None
    """Number of a version; None: the recorded rewards, where there are any."""
    size: int | None = Field(None, ge=2, le=1024)


class Trials:
    """All trials of this dashboard, with their caches. Thread-safe."""

    def __init__(self, store: RunStore, drafts: Drafts) -> None:
        self.store = store
        self.drafts = drafts
        self.process_cache = ProcessCache(SECONDS, LOAD_SECONDS)
        self._scored: OrderedDict[tuple[str, str], Scored] = OrderedDict()
        self._trials: OrderedDict[str, Trial] = OrderedDict()
        self._recorded: OrderedDict[tuple[str, str], TrialSamples] = OrderedDict()
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Start spare reward processes, and import array-api-compat in advance."""
        self.process_cache.warm_up()
        threading.Thread(target=advantages.combine, args=(np.zeros((1, 1)), np.ones(1)), daemon=True).start()

    def get(self, identity: str) -> Trial:
        """A recent trial. Raises RunError where it is no longer cached."""
        found = self._trials.get(identity)
        if found is None:
            raise RunError(
                "This trial is over: the dashboard was restarted, or many more came after it. Run it again."
            )
        return found

    def run(self, body: TryBody, hold: Hold = lambda ready: None) -> Generator[Json]:
        """Messages for the page: `doing` (words), `group` (the first group), `progress`, and finally `done`, `ended` or `refused`.
        `hold` receives the processes that are scoring."""
        try:
            yield from self._run(body, hold)
        except WorkbenchError as error:
            yield trial_json.refused(error)

    def peek(self, on: Choice) -> Json | None:
        """The first group as recorded, without running code; None where its samples must be drawn first. Raises WorkbenchError."""
        if isinstance(on, trial_samples.Fresh) and not trial_samples.is_cached(self.store, self.drafts, on):
            return None
        *_, samples = self._fetch(on)
        assert isinstance(samples, TrialSamples)
        words = "" if samples.reward_B is None else RECORDED
        trial = Trial(samples, [], Scored({}, {}, "", None, 0.0, 0), samples.reward_B, words)
        self._remember(trial)
        return {
            **trial_json.overview(trial),
            "trial": trial.id,
            "range": trial_json.reward_range(trial),
            "group": trial_json.group(trial, 0),
        }

    def attack(self, body: TryBody) -> Json:
        """Score of each attack, with the old version's beside it. Raises WorkbenchError."""
        samples = self._load_samples(body)
        ready = self._load(body.written, samples)
        groups = samples.groups[:: max(1, len(samples.groups) // ATTACKED)][:ATTACKED]
        self._check_does_not_hang(ready, groups[0])
        tricks = attacks.attack(ready.sources, groups, pool=ready.pool)
        old: dict[str, float | None] = {}
        if body.against is not None:
            version = self.drafts.version(body.against)
            before = self._load(RewardCode(code=version.code, parts=version.parts), samples)
            old = {a.name: a.score for a in attacks.attack(before.sources, groups, pool=before.pool)}
        return trial_json.attack_results(tricks, old, body.against)

    # -- inside --------------------------------------------------------------------------------------------

    def _check_does_not_hang(self, ready: LoadedRewards, group: RewardInput) -> None:
        """Raises RewardError for a reward that hangs on an ordinary sample: dozens of attacks on it would take minutes."""
        [score] = ready.pool.score_inputs([reward_input.with_completions(group, group["completions"][:1])])
        for reason in score.reasons.values():
            if worker_group.is_lost_call(reason, SECONDS):
                self.process_cache.discard(ready)
                raise RewardError(reason)

    def _run(self, body: TryBody, hold: Hold) -> Iterator[Json]:
        parts = weighted_parts(body.written)  # an error in the code shows before anything is sampled
        samples: TrialSamples | None = None
        for fetched in self._fetch(body.on):
            if isinstance(fetched, TrialSamples):
                samples = fetched
            else:
                yield {"type": "doing", "words": fetched}
        assert samples is not None
        yield {"type": "doing", "words": "Loading your code…"}
        now: Trial | None = None
        for scored in self._score(body.written, samples, hold):
            first = now is None
            now = Trial(samples, parts, scored, *self._old(body, samples, None))
            if first:
                yield {
                    "type": "group",
                    **trial_json.overview(now),
                    "range": trial_json.reward_range(now),
                    "group": trial_json.group(now, 0),
                }
            yield {"type": "progress", "done": scored.done, "total": sum(samples.sizes)}
        assert now is not None
        old_rewards_B, old_name = self._old(body, samples, hold)
        now = dataclasses.replace(now, old_rewards_B=old_rewards_B, old_name=old_name)
        self._remember(now)
        yield {"type": "ended" if now.scored.ended else "done", **trial_json.summary(now, body.size)}

    def _old(
        self, body: TryBody, samples: TrialSamples, hold: Hold | None
    ) -> tuple[NDArray[np.float64] | None, str]:
        """The rewards to compare with, and their name; without `hold` only cached ones."""
        if body.against is None:
            return samples.reward_B, "" if samples.reward_B is None else RECORDED
        version = self.drafts.version(body.against)
        written, words = RewardCode(code=version.code, parts=version.parts), f"v{version.number}"
        try:
            if hold is not None:
                *_, scored = self._score(written, samples, hold)
            else:
                known = self._scored.get(_key(written, samples))
                if known is None:
                    return None, words
                scored = known
        except RewardError as error:
            return None, f"{words} (cannot be used: {error})"
        return padded(
            total(scored, weighted_parts(written), samples.config.reward_clip), sum(samples.sizes)
        ), words

    def _remember(self, trial: Trial) -> None:
        with self._lock:
            self._trials[trial.id] = trial
            while len(self._trials) > MAX_KEPT:
                self._trials.popitem(last=False)

    def _fetch(self, on: Choice) -> Iterator[str | TrialSamples]:
        """`trial_samples.load`; recorded samples are cached until the run changes."""
        if not isinstance(on, trial_samples.Recorded):
            yield from trial_samples.load(self.store, self.drafts, on)
            return
        key = (on.model_dump_json(), trial_samples.state_of(self.store, on))
        samples = self._recorded.get(key)
        if samples is None:
            samples = trial_samples.of_run(self.store, on)
            with self._lock:
                self._recorded[key] = samples
                while len(self._recorded) > MAX_KEPT_RUNS:
                    self._recorded.popitem(last=False)
        yield samples

    def _load_samples(self, body: TryBody) -> TrialSamples:
        *_, samples = self._fetch(body.on)
        assert isinstance(samples, TrialSamples)
        return samples

    def _load(self, written: RewardCode, samples: TrialSamples) -> LoadedRewards:
        parts = weighted_parts(written)
        raw = written.code.encode("utf-8", "surrogatepass")
        specs = [RewardSpec(name=part.name, weight=part.weight, enabled=part.enabled) for part in parts]
        texts = [source.SourceText(raw, part.name, CODE_FILE) for part in parts]
        return self.process_cache.load(specs, texts, samples.columns, samples.config.max_completion_length)

    def _score(self, written: RewardCode, samples: TrialSamples, hold: Hold) -> Iterator[Scored]:
        """Scores so far, repeatedly; the last is complete, or says why scoring was stopped."""
        key = _key(written, samples)
        if (known := self._scored.get(key)) is not None:
            yield known
            return
        ready = self._load(written, samples)
        tally = Tally((one.name for one in ready.sources), SECONDS, guesses(ready.sources))
        wants_tokens = any(one.shape.wants_tokens for one in ready.sources)
        groups = samples.with_tokens() if wants_tokens else samples.groups
        over = False
        hold(ready)
        try:
            for part in _sliced(groups):
                tally.take(ready.pool.score_inputs(part), ready.pool.printed)
                lost = tally.lost()
                complete = tally.done == sum(samples.sizes) and not lost
                state = tally.state(lost, *self._repeated(ready, groups, tally) if complete else (None, None))
                if complete:
                    self._keep(key, state)
                over = complete or bool(lost)
                if lost:
                    self.process_cache.discard(ready)
                yield state
                if lost:
                    return
        finally:
            hold(None)
            if not over:  # the page has disconnected or started another trial
                self.process_cache.discard(ready)

    @staticmethod
    def _repeated(ready: LoadedRewards, groups: Sequence[RewardInput], tally: Tally) -> tuple[bool, float]:
        """Whether scoring again gives the same, and seconds per sample with running processes."""
        few, count = [], 0
        for one in groups:
            few.append(one)
            count += len(one["completions"])
            if count >= REPEATED:
                break
        started = time.perf_counter()
        scores = ready.pool.score_inputs(few, step=1)  # another step, so another random seed
        seconds = time.perf_counter() - started
        same = all(
            _same(score.values[name], column[i])
            for i, score in enumerate(scores)
            for name, column in tally.values.items()
        )
        return same, seconds / len(scores)

    def _keep(self, key: tuple[str, str], state: Scored) -> None:
        with self._lock:
            self._scored[key] = state
            while len(self._scored) > MAX_KEPT:
                self._scored.popitem(last=False)


def weighted_parts(written: RewardCode) -> list[RewardPart]:
    """The functions of the code with their weights, 1 where none was given. Raises RewardError."""
    found = reward_source.functions(written.checked().code)
    if not found:
        raise RewardError(
            "There is no reward in this code yet. Write a function at the top level, for example "
            "`def short(completion: str) -> float:`."
        )
    given = {part.name: part for part in written.parts}
    parts = [given.get(one.name, RewardPart(name=one.name)) for one in found]
    if not any(part.enabled and part.weight for part in parts):
        raise RewardError("No function counts. Switch one on, with a weight other than 0.")
    return parts


def _sliced(groups: Sequence[RewardInput]) -> Iterator[list[RewardInput]]:
    start = 0
    for size in itertools.chain(_SLICES, itertools.repeat(_SLICES[-1])):
        if start >= len(groups):
            return
        yield list(groups[start : start + size])
        start += size


def _same(one: float | None, other: float) -> bool:
    return np.isnan(other) if one is None else one == other


def _key(written: RewardCode, samples: TrialSamples) -> tuple[str, str]:
    names = ",".join(part.name for part in weighted_parts(written))
    rated = hash(samples.rating_B.tobytes())  # a reward may use ratings
    return f"{names}\n{written.code}", f"{samples.key}/{samples.config.max_completion_length}/{rated}"
