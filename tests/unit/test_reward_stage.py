"""Stage 3 around the pool: people are waited for, services are waited for, and a resume takes what was said."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes import fake_config
from tests.helpers import wait_until
from tests.rewarding import group, sources_of, written
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.types import Group, Score, StepRecord
from workbench.record import folder as record
from workbench.record import rating
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader
from workbench.record.status import Status
from workbench.record.writer import Writer
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import RewardSource, resolve
from workbench.train.checkpointing.replay import Replay
from workbench.train.reward_stage import RewardStage

TWO = [group("good one", "bad one"), group("good one", "neither", question="3+3?")]


class OnePool(NamedTuple):
    """Stands for the pools of a run whose rewards never change."""

    pool: RewardPool
    sources: list[RewardSource]

    def of(self, config: RunConfig) -> RewardPool:
        return self.pool


class Stage:
    """A run folder with a control in the process and a thread for whatever the loop would do."""

    def __init__(self, root: Path, human_timeout: float = 600.0) -> None:
        self.config = fake_config().changed(human_timeout=human_timeout)
        self.folder: RunFolder = record.create(root, self.config)
        self.control = Control(self.folder, Status(state="running"), beat=0.1)
        self.events: list[tuple[str, dict]] = []
        self.control.record_to(lambda kind, data, step=None: self.events.append((kind, data)))
        self.phases: list[tuple[str, int, int]] = []

    def phase(self, name: str):
        return lambda done, total: self.phases.append((name, done, total))

    def scoring(
        self, pool: RewardPool, sources: list[RewardSource], replay: Replay | None = None
    ) -> RewardStage:
        replay = replay or Replay(self.folder, 2)
        stage = RewardStage(OnePool(pool, sources), self.folder, self.control, replay)  # type: ignore[arg-type]
        stage.configure(self.config)
        return stage

    def in_background(self, scoring: RewardStage, groups: list[Group], step: int = 3) -> list[list[Score]]:
        found: list[list[Score]] = []
        self.thread = threading.Thread(
            target=lambda: found.append(scoring.score(groups, step, self.phase)), daemon=True
        )
        self.thread.start()
        return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "runs")
    with stage.control:
        yield stage


@pytest.fixture
def human(tmp_path: Path) -> Iterator[tuple[RewardPool, list[RewardSource]]]:
    specs = [RewardSpec(name="human"), RewardSpec(name="correct", weight=0.5)]
    sources = resolve(specs, tmp_path / "sources")
    with RewardPool(sources) as pool:
        yield pool, sources


def test_a_step_waits_until_every_answer_is_rated(stage: Stage, human) -> None:
    found = stage.in_background(stage.scoring(*human), TWO)
    asked = wait_until(lambda: rating.waiting(stage.folder))
    assert asked["step"] == 3 and 590 < asked["until"] - time.time() <= 600
    assert asked["groups"][1]["question"] == "3+3?" and asked["groups"][1]["texts"] == ["good one", "neither"]
    assert stage.control.status.until == asked["until"]
    reader = Reader(stage.folder)
    rating.rate(reader, 3, 0, 0, True)
    rating.rate(reader, 3, 0, 1, False)
    rating.rate(reader, 3, 1, 0, place=2)
    wait_until(lambda: ("rate", 2, 4) in stage.phases)  # a single place says nothing yet
    assert not found
    rating.rate(reader, 3, 1, 1, place=1)
    wait_until(lambda: found)
    assert [score.values["human"] for score in found[0]] == [1.0, 0.0, 0.0, 1.0]
    assert rating.waiting(stage.folder) is None and stage.control.status.until is None


def test_what_nobody_rated_in_time_is_absent_and_no_failure(tmp_path: Path, human) -> None:
    stage = Stage(tmp_path / "runs", human_timeout=0.2)
    Notes(stage.folder).thumb(Visit(1), TWO[0].prompt.id, "good one", True)
    scores = stage.scoring(*human).score(TWO, 3, stage.phase)
    assert [score.values["human"] for score in scores] == [1.0, None, None, None]
    assert scores[1].reasons["human"] == "No value: nobody has rated this sample."
    assert scores[1].reward == 0.0 and human[0].error_rate == {"human": 0.0, "correct": 0.0}


def test_somebody_can_say_go_on(stage: Stage, human) -> None:
    found = stage.in_background(stage.scoring(*human), TWO)
    wait_until(lambda: rating.waiting(stage.folder))
    assert rating.stop_waiting(stage.folder) == 3
    wait_until(lambda: found)
    assert [score.values["human"] for score in found[0]] == [None] * 4


def test_a_stop_ends_the_waiting_and_the_step_is_not_whole(stage: Stage, human) -> None:
    scoring = stage.scoring(*human)
    found = stage.in_background(scoring, TWO)
    wait_until(lambda: rating.waiting(stage.folder))
    stage.folder.put("stop")
    wait_until(lambda: found)
    assert scoring.interrupted and rating.waiting(stage.folder) is None


def test_checks_and_watched_ratings_wait_for_nobody(stage: Stage, human, tmp_path: Path) -> None:
    assert len(stage.scoring(*human).score_heldout(TWO, 3, stage.phase)) == 4
    specs = [RewardSpec(name="correct"), RewardSpec(name="human", enabled=False)]
    sources = resolve(specs, tmp_path / "watched")
    with RewardPool(sources) as pool:
        scores = stage.scoring(pool, sources).score(TWO, 3, stage.phase)
    assert [score.values["human"] for score in scores] == [None] * 4


def test_a_resumed_run_takes_what_was_said_before_and_asks_nobody_again(stage: Stage, tmp_path: Path) -> None:
    scores = [
        Score(
            {"human": value, "correct": 0.0}, {} if value is not None else {"human": "No value: none."}, value
        )
        for value in (1.0, None, 0.25, None)
    ]
    with Writer(stage.folder) as writer:
        writer.step(StepRecord(3, "train", TWO, scores))
    replay = Replay(stage.folder, 2)
    Notes(stage.folder).thumb(
        Visit(3), TWO[0].prompt.id, "bad one", True
    )  # too late: the step went on without
    specs = [RewardSpec(name="human"), RewardSpec(name="correct", weight=0.5)]
    sources = resolve(specs, tmp_path / "sources")
    with RewardPool(sources, recorded=replay.scores) as pool:
        scoring = stage.scoring(pool, sources, replay)
        again = scoring.score(TWO, 3, stage.phase)
    assert [score.values["human"] for score in again] == [1.0, None, 0.25, None]
    assert [score.values["correct"] for score in again] == [0.0] * 4


SERVICE = """
    import os
    from workbench.rewards.api.outcome import Unavailable

    def f(completion):
        if completion != "good one" and not os.path.exists({mark!r}):
            raise Unavailable("the grader does not answer")
        return 1.0
"""


def test_a_service_that_is_away_pauses_the_run_until_somebody_says_resume(
    stage: Stage, tmp_path: Path
) -> None:
    mark = tmp_path / "up"
    sources = sources_of(tmp_path, SERVICE.format(mark=str(mark)))
    with RewardPool(sources) as pool:
        scoring = stage.scoring(pool, sources)
        found = stage.in_background(scoring, TWO)
        wait_until(lambda: stage.control.status.state == "paused")
        reason = stage.control.status.reason
        assert reason.startswith("Paused: what a reward needs is away (f on 50% of the samples).")
        assert reason.endswith("Infrastructure: the grader does not answer")
        stage.folder.put("checkpoint")
        stage.folder.put("resume")
        wait_until(lambda: [kind for kind, _ in stage.events].count("rewards_unavailable") == 2)
        mark.touch()
        stage.folder.put("resume")
        wait_until(lambda: found)
        assert [score.reward for score in found[0]] == [1.0] * 4
        assert stage.control.status.state == "running" and not scoring.interrupted
        assert [command.command for command in stage.control.poll(3)] == ["checkpoint"], (
            "kept for the boundary"
        )


def test_a_stop_ends_the_pause_of_a_service(stage: Stage, tmp_path: Path) -> None:
    sources = sources_of(tmp_path, SERVICE.format(mark=str(tmp_path / "never")))
    with RewardPool(sources) as pool:
        scoring = stage.scoring(pool, sources)
        found = stage.in_background(scoring, TWO)
        wait_until(lambda: stage.control.status.state == "paused")
        stage.folder.put("stop")
        wait_until(lambda: found)
    assert scoring.interrupted


def test_few_missing_answers_of_a_service_cost_only_themselves(stage: Stage, tmp_path: Path) -> None:
    sources = sources_of(tmp_path, SERVICE.format(mark=str(tmp_path / "never")))
    groups = [group(*["good one"] * 39, "other")]
    with RewardPool(sources) as pool:
        scores = stage.scoring(pool, sources).score(groups, 0, stage.phase)
    assert [score.reward for score in scores] == [1.0] * 39 + [None]


def test_scoring_overlaps_with_the_sampling_of_other_groups(stage: Stage, tmp_path: Path) -> None:
    from workbench.train.rollout_stage import rollout_stage  # noqa: PLC0415 (loads torch; no other test here needs it)

    mark = tmp_path / "scored"
    code = (
        f"def f(completion):\n    open({str(mark)!r}, 'a').write(completion[0])\n    return len(completion)\n"
    )
    sources = sources_of(tmp_path, code)

    class Engine:
        name = "fake"

        def generate(self, requests, sampling, progress=None, on_group_done=None):
            on_group_done(0, TWO[0])
            wait_until(lambda: mark.exists() and len(mark.read_text()) == 2)  # its reward ran meanwhile
            return TWO

    config = RunConfig(prompts_per_step=2, num_generations=2)
    with RewardPool(sources) as pool:
        found = rollout_stage(
            Engine(), stage.scoring(pool, sources), [one.prompt for one in TWO], [], config, None, 3,
            lambda name: stage.phase(name),
        )  # fmt: skip
    assert [score.reward for score in found.scores_B] == [8.0, 7.0, 8.0, 7.0]
    assert mark.read_text() == "gbgn", "each answer once"


def test_own_rewards_may_ask_what_people_said(stage: Stage, tmp_path: Path) -> None:
    code = """
        def f(completion, human_rating):
            return None if human_rating is None else 10 * human_rating

        def of_group(completions, human_ratings, **kwargs):
            return [rating is not None for rating in human_ratings]
    """
    path = written(tmp_path, code)
    specs = [RewardSpec(name=f"{path}:{name}", enabled=name == "f") for name in ("f", "of_group")]
    sources = resolve(specs, tmp_path / "sources")
    Notes(stage.folder).rank(Visit(3), TWO[0].prompt.id, {"good one": 1, "bad one": 2})
    Notes(stage.folder).rank(Visit(3), TWO[1].prompt.id, {"good one": 1, "neither": 1})
    with RewardPool(sources) as pool:
        scores = stage.scoring(pool, sources).score_heldout(TWO, 3, stage.phase)
    assert [score.values["f"] for score in scores] == [10.0, 0.0, None, None]
    assert [score.values["of_group"] for score in scores] == [1.0, 1.0, 0.0, 0.0]
