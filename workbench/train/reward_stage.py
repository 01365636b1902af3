"""Stage 3 as the loop sees it: answers in, scores out, and everything in between that takes time or other people.

Slow rewards begin while other groups are still being sampled; people are waited for; a service that is away
pauses the run instead of costing it answers.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from workbench.core.config import RunConfig
from workbench.core.types import Group, Score
from workbench.record import notes, rating
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes
from workbench.rewards.api import reward_input
from workbench.rewards.api.reward_input import Ratings, RewardInput
from workbench.rewards.runtime.pool import RewardPool, Submitted, infrastructure_share
from workbench.rewards.runtime.registry import RewardSource
from workbench.rewards.runtime.worker_group import WorkerResult
from workbench.train.checkpointing.replay import Replay

MAX_FAILURES = 0.05
"""Share of a step's answers that one reward may fail on before it is reported, or the run stopped or paused."""
LOOK_SECONDS = 0.5
"""How often a waiting run looks for new ratings."""

Phase = Callable[[str], Callable[[int, int], None]]
"""Names the phase that begins, and takes its progress."""


class Scoring:
    """The rewards of a run, with what surrounds them."""

    def __init__(
        self,
        pool: RewardPool,
        sources: Sequence[RewardSource],
        config: RunConfig,
        folder: RunFolder,
        control: Control,
        replay: Replay,
    ) -> None:
        self.pool = pool
        self.config = config
        self.control = control
        self.folder = folder
        self.replay = replay
        self.gave_up = False
        """A stop came while the last scores were waited for: they are not whole."""
        self._wants_ratings = any(source.shape.wants_ratings for source in sources)
        self._waits = any(
            source.shape.wants_ratings and source.enabled and source.weight for source in sources
        )

    def ahead(self, step: int) -> "Ahead":
        """Takes groups as they finish sampling, so that scoring them overlaps with sampling the rest."""
        return Ahead(self, step)

    def step(
        self, groups: Sequence[Group], step: int, phase: Phase, ahead: "Ahead | None" = None
    ) -> list[Score]:
        """Scores of a step's answers, flat. Waits for people where a reward counts on them, and for services."""
        ratings = self._people(groups, step, phase) if self._waits else self._ratings()
        asked = reward_input.of_groups(groups, self.pool.wants_tokens, ratings)
        return self._score(asked, step, phase, ahead.begun if ahead else {})

    def check(self, groups: Sequence[Group], step: int, phase: Phase) -> list[Score]:
        """Scores of a held-out check; nobody is waited for."""
        asked = reward_input.of_groups(groups, self.pool.wants_tokens, self._ratings())
        return self._score(asked, step, phase, {})

    def _score(self, asked: list[RewardInput], step: int, phase: Phase, begun: Submitted) -> list[Score]:
        scores_B = self.pool.score_inputs(asked, step, phase("score"), begun)
        while missing := {
            name: share for name, share in infrastructure_share(scores_B).items() if share > MAX_FAILURES
        }:
            reasons = [score.reasons[name] for score in scores_B for name in missing if name in score.reasons]
            told = ", ".join(f"{name} on {share:.0%} of the answers" for name, share in missing.items())
            text = f"Paused: what a reward needs is away ({told}). {reasons[0]}"
            self.control.event("rewards_unavailable", {"text": text, "share": missing})
            print(text, flush=True)
            if not self.control.hold(text, until=lambda: False):
                self.gave_up = True
                break
            scores_B = self.pool.score_inputs(asked, step, phase("score"))
        return scores_B

    # -- people --------------------------------------------------------------------------------------------

    def _ratings(self) -> Ratings | None:
        return notes.values(Notes(self.folder).ratings()) if self._wants_ratings else None

    def _people(self, groups: Sequence[Group], step: int, phase: Phase) -> Ratings:
        """Ratings of these answers, once all are there, or the time is over, or somebody says go on."""
        progress = phase("rate")
        everything = {(group.prompt.id, rollout.text) for group in groups for rollout in group.rollouts}
        seconds = 0.0 if self.replay.knows(step, everything) else self.config.human_timeout
        deadline = time.monotonic() + seconds
        ratings = self._ratings() or {}
        if not seconds or everything <= ratings.keys():
            return ratings
        until = time.time() + seconds
        self.control.until(until)
        try:
            rating.ask(self.folder, step, until, groups)
            while True:
                ratings = self._ratings() or {}
                progress(len(everything & ratings.keys()), len(everything))
                self.gave_up = self.control.stop_requested
                over = time.monotonic() >= deadline or str(step) in Notes(self.folder).kept(rating.GO_ON)
                if everything <= ratings.keys() or over or self.gave_up:
                    return ratings
                time.sleep(LOOK_SECONDS)
        finally:
            self.control.until(None)
            rating.answered(self.folder)


class Ahead:
    """Groups whose scoring has begun while others of the same request are still being sampled."""

    def __init__(self, scoring: Scoring, step: int) -> None:
        self._scoring, self._step = scoring, step
        self.begun: dict[int, list[Future[WorkerResult]]] = {}

    def __call__(self, place: int, group: Group) -> None:
        """Group number `place` of the request is whole."""
        if not self._scoring._wants_ratings:  # what people say of it is not there yet
            pool = self._scoring.pool
            self.begun[place] = pool.submit(reward_input.of_groups([group], pool.wants_tokens), self._step)
