"""What a resumed run repeats: later changes of settings over several attempts, and what was said from outside."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes import fake_config, make_step
from workbench.core.config import RewardSpec
from workbench.core.types import Score, StepRecord
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.writer import Writer
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import resolve
from workbench.train.checkpointing.replay import Change, Replay, later_changes


def said(step: int, ok: bool = True, command: str = "set", **args: Any) -> dict[str, Any]:
    return {"step": step, "data": {"command": command, "ok": ok, "args": args}}


@pytest.mark.parametrize(
    ("events", "first", "expected"),
    [
        ([], 0, []),
        ([said(2, beta=0.1), said(5, beta=0.2)], 3, [(5, {"beta": 0.2})]),
        (
            [said(3, beta=0.1)],
            3,
            [(3, {"beta": 0.1})],
        ),  # at the checkpoint's own boundary: once more changes nothing
        ([said(4, ok=False, beta=9.0), said(4, command="pause"), said(4, command="checkpoint")], 3, []),
        # A second attempt decides anew at step 4: what the first did to beta at 6 does not come back, temperature does.
        (
            [said(6, beta=0.2, temperature=0.9), said(4, beta=0.5)],
            3,
            [(6, {"temperature": 0.9}), (4, {"beta": 0.5})],
        ),
        # A third one lived through that and changed it again, later.
        (
            [said(6, beta=0.2), said(4, beta=0.5), said(8, beta=0.7)],
            3,
            [(4, {"beta": 0.5}), (8, {"beta": 0.7})],
        ),
        ([said(6, beta=0.2), said(6, beta=0.3)], 3, [(6, {"beta": 0.3})]),
    ],
)
def test_the_changes_that_come_back_are_those_the_last_attempt_would_have_seen(
    events: list[dict[str, Any]], first: int, expected: list[tuple[int, dict[str, Any]]]
) -> None:
    assert later_changes(events, first) == [Change(*one) for one in expected]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path, fake_config(groups=2, samples=3))


def test_a_new_decision_stands_in_for_what_would_have_come_back(folder: RunFolder) -> None:
    with Writer(folder) as writer:
        for step, args in ((1, {"beta": 0.1}), (4, {"beta": 0.2, "temperature": 0.9})):
            writer.event("command", said(step, **args)["data"], step)
    replay = Replay(folder, 1)
    assert not replay.begun and replay.due(1) == {"beta": 0.1} and replay.due(2) == {}
    replay.forget(3, {"beta": 0.7})
    assert replay.due(4) == {"temperature": 0.9}


JUDGE = '''"""Never says the same twice, and counts how often it is asked."""

import random


async def judge(completion: str) -> float:
    with open(__file__ + ".asked", "a") as file:
        file.write("x")
    return random.SystemRandom().random()


def plain(completion: str) -> float:
    return float(len(completion))
'''


def test_what_a_judge_said_of_a_recorded_step_is_not_asked_again_and_the_rest_is(folder: RunFolder) -> None:
    code = folder.path / "judging.py"
    code.write_text(JUDGE)
    specs = [RewardSpec(name=f"{code}:judge"), RewardSpec(name=f"{code}:plain", weight=0.001)]
    sources = resolve(specs, folder.rewards)
    steps = [make_step(number, groups=2, samples=3) for number in (0, 1)]

    def asked() -> int:
        return sum(len(path.read_text()) for path in folder.rewards.glob("*.asked"))

    with RewardPool(sources) as pool:
        first = [pool.score(step.groups, number) for number, step in enumerate(steps)]
    assert asked() == 12
    with Writer(folder) as writer:
        done = StepRecord(1, "train", steps[1].groups, first[1])
        writer.step(done)  # step 0 was lost with the process
        writer.start_attempt(0)
    replay = Replay(folder, 0)
    assert replay.begun and replay.last == 1  # although a later attempt has not got there again
    with RewardPool(sources, recorded=replay.scores) as pool:
        again = [pool.score(step.groups, number) for number, step in enumerate(steps)]
    assert [score.values for score in again[1]] == [score.values for score in first[1]]
    assert [score.reward for score in again[1]] == [score.reward for score in first[1]]
    fresh: list[Score] = again[0]
    assert all(new.values["judge"] != old.values["judge"] for new, old in zip(fresh, first[0], strict=True))
    assert asked() == 18 and [s.values["plain"] for s in fresh] == [s.values["plain"] for s in first[0]]
