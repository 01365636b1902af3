"""Stage 3 as the loop sees it: groups in, scores out, and everything in between that waits for a person or a service.

Rewards of finished groups begin while other groups are still being sampled; a reward that needs human ratings waits for them; a service
that cannot be reached pauses the run instead of costing it samples.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from workbench.core.config import RunConfig
from workbench.core.errors import RewardError
from workbench.core.types import Group, Score
from workbench.record import notes, rating
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes
from workbench.rewards.api import reward_input
from workbench.rewards.api.reward_input import Ratings, RewardInput
from workbench.rewards.runtime.pool import RewardPool, Submitted, error_share, infrastructure_share
from workbench.rewards.runtime.worker_group import WorkerResult
from workbench.train.checkpointing.replay import Replay
from workbench.train.reward_pools import RewardPools

MAX_FAILURES = 0.05
"""Share of a step's samples that one reward may fail on before it is reported, or the run stopped or paused."""
POLL_SECONDS = 0.5
"""How often a waiting run looks for new ratings."""

Phase = Callable[[str], Callable[[int, int], None]]
"""Names the phase that begins, and takes its progress."""


class RewardStage:
    """The rewards of a run. `configure` before the first use, and again whenever settings changed."""

    def __init__(
        self, reward_pools: RewardPools, folder: RunFolder, control: Control, replay: Replay
    ) -> None:
        self.reward_pools, self.folder, self.control, self.replay = reward_pools, folder, control, replay
        self.interrupted = False
        """A stop came while scores were waited for: those of this step are incomplete."""

    def configure(self, config: RunConfig) -> None:
        """Score by these settings from now on. Raises RewardError."""
        self.config = config
        self.pool: RewardPool = self.reward_pools.of(config)
        rated = [source for source in self.reward_pools.sources if source.shape.wants_ratings]
        self.wants_ratings = bool(rated)
        self._waits_for_ratings = any(source.enabled and source.weight for source in rated)

    @property
    def names(self) -> list[str]:
        """What the values of each reward are called, those of the settings first and in their order."""
        return self.reward_pools.names

    def early(self, step: int) -> "EarlyScoring":
        """To be given to the engine as `on_group_done`: scoring then overlaps with sampling."""
        return EarlyScoring(self, step)

    def score(
        self, groups: Sequence[Group], step: int, phase: Phase, early: "EarlyScoring | None" = None
    ) -> list[Score]:
        """(B,) scores of a step's completions. Waits for ratings where a reward counts on them, and for services."""
        ratings = self._rated(groups, step, phase) if self._waits_for_ratings else self._ratings()
        inputs = reward_input.of_groups(groups, self.pool.wants_tokens, ratings)
        return self._score(inputs, step, phase, early.begun if early else {})

    def score_heldout(self, groups: Sequence[Group], step: int, phase: Phase) -> list[Score]:
        """(B,) scores of a held-out evaluation, with the ratings there are."""
        inputs = reward_input.of_groups(groups, self.pool.wants_tokens, self._ratings())
        return self._score(inputs, step, phase, {})

    def _score(self, inputs: list[RewardInput], step: int, phase: Phase, begun: Submitted) -> list[Score]:
        scores_B = self.pool.score_inputs(inputs, step, phase("score"), begun)
        while missing := {
            name: share for name, share in infrastructure_share(scores_B).items() if share > MAX_FAILURES
        }:
            reasons = [score.reasons[name] for score in scores_B for name in missing if name in score.reasons]
            failures = ", ".join(f"{name} on {share:.0%} of the samples" for name, share in missing.items())
            text = f"Paused: what a reward needs is away ({failures}). {reasons[0]}"
            self.control.event("rewards_unavailable", {"text": text, "share": missing})
            print(text, flush=True)
            if not self.control.hold(text, until=lambda: False):
                self.interrupted = True
                break
            scores_B = self.pool.score_inputs(inputs, step, phase("score"))
        return scores_B

    def report_failures(self, scores_B: Sequence[Score]) -> None:
        """Record which rewards failed too often in a step. Raises RewardError where the run is to stop then."""
        failing = {name: share for name, share in error_share(scores_B).items() if share > MAX_FAILURES}
        if not failing:
            return
        failures = ", ".join(f"{name} on {share:.0%} of the samples" for name, share in failing.items())
        self.control.event("reward_failed", {"text": f"Rewards failed: {failures}.", "share": failing})
        if self.config.reward_error_policy == "stop":
            raise RewardError(
                f"Rewards failed: {failures}; the run stops above {MAX_FAILURES:.0%}. The samples' own pages give the reasons. Mend the reward, "
                "or set reward_error_policy to mask."
            )

    # -- human ratings -------------------------------------------------------------------------------------

    def _ratings(self) -> Ratings | None:
        return notes.values(Notes(self.folder).ratings()) if self.wants_ratings else None

    def _rated(self, groups: Sequence[Group], step: int, phase: Phase) -> Ratings:
        """Ratings of these completions, once all are there, the time is over, or a user asks to go on without the rest."""
        progress = phase("rate")
        wanted = {(group.prompt.id, rollout.text) for group in groups for rollout in group.rollouts}
        seconds = 0.0 if self.replay.knows(step, wanted) else self.config.human_timeout
        deadline = time.monotonic() + seconds
        ratings = self._ratings() or {}
        if not seconds or wanted <= ratings.keys():
            return ratings
        until = time.time() + seconds
        self.control.until(until)
        try:
            rating.request_ratings(self.folder, step, until, groups)
            while True:
                ratings = self._ratings() or {}
                progress(len(wanted & ratings.keys()), len(wanted))
                self.interrupted = self.control.stop_requested
                over = time.monotonic() >= deadline or str(step) in Notes(self.folder).kept(
                    rating.STOP_WAITING
                )
                if wanted <= ratings.keys() or over or self.interrupted:
                    return ratings
                time.sleep(POLL_SECONDS)
        finally:
            self.control.until(None)
            rating.end_request(self.folder)


class EarlyScoring:
    """Starts scoring a group as soon as it is sampled, while others of the same request are not."""

    def __init__(self, stage: RewardStage, step: int) -> None:
        self._stage, self._step = stage, step
        self.begun: dict[int, list[Future[WorkerResult]]] = {}

    def __call__(self, place: int, group: Group) -> None:
        """Group number `place` of the request is sampled."""
        if not self._stage.wants_ratings:  # its ratings are not there yet
            pool = self._stage.pool
            self.begun[place] = pool.submit(reward_input.of_groups([group], pool.wants_tokens), self._step)
