"""Recorded completions scored again: every figure against numbers worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import workbench
from tests.rewarding import group, written
from workbench import cli
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import RewardError, RunError
from workbench.core.types import Score, StepRecord
from workbench.diagnose.rescoring import prepared, rescore, stream
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader
from workbench.record.writer import Writer

# Two steps of two groups; the recorded reward is the number after the colon.
STEPS = [
    [("1+1?", ["a:1", "bb:0", "ccc:0", "dddd:1"]), ("2+2?", ["e:0", "ff:0", "ggg:0"])],
    [("3+3?", ["h:1", "ii:0"]), ("1+1?", ["a:1", "jjjjj:0"])],
]
LENGTH = "def length(completion):\n    return float(len(completion) - 2)\n"


def write(root: Path, config: RunConfig | None = None) -> RunFolder:
    folder = record.create(root, config or RunConfig(advantage_std="population", advantage_eps=0.0))
    with Writer(folder) as writer:
        for step, groups_of_step in enumerate(STEPS):
            groups = [group(*texts, question=question, level=step) for question, texts in groups_of_step]
            rewards = [float(text.partition(":")[2]) for _, texts in groups_of_step for text in texts]
            scores = [Score({"correct": reward}, {}, reward) for reward in rewards]
            advantages_B = np.concatenate([_by_hand(texts) for _, texts in groups_of_step])
            writer.step(StepRecord(step, "train", groups, scores, advantages_B))
    return folder


def _by_hand(texts: list[str]) -> np.ndarray:
    rewards = np.array([float(text.partition(":")[2]) for text in texts])
    return (rewards - rewards.mean()) / rewards.std() if rewards.std() else np.zeros(len(texts))


def test_old_and_new_reward_advantage_place_and_flip_of_every_completion(tmp_path: Path) -> None:
    found = rescore(Reader(write(tmp_path)), LENGTH)
    assert found.old_B.tolist() == [1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0]
    assert found.new_B.tolist() == [1, 2, 3, 4, 1, 2, 3, 1, 2, 1, 5]
    first = np.array([-1.5, -0.5, 0.5, 1.5]) / math.sqrt(1.25)
    second = np.array([-1.0, 0.0, 1.0]) / math.sqrt(2 / 3)
    assert found.new_advantage_B == pytest.approx([*first, *second, -1, 1, -1, 1])
    assert found.old_advantage_B.tolist() == [1, -1, -1, 1, 0, 0, 0, 1, -1, 1, -1]
    assert found.flip_B.tolist() == [True, False, True, False, False, False, False, True, True, True, True]
    assert found.old_place_B.tolist() == [1, 3, 3, 1, 1, 1, 1, 1, 2, 1, 2]
    assert found.new_place_B.tolist() == [4, 3, 2, 1, 3, 2, 1, 2, 1, 2, 1]


def test_the_summary_counts_what_changed(tmp_path: Path) -> None:
    summary = rescore(Reader(write(tmp_path)), LENGTH).summary()
    assert summary.pop("seconds") >= 0
    # dddd stays a winner of its group; the group without a winner before cannot lose one.
    assert summary == {
        "samples": 11, "groups": 4, "changed": 8, "advantage_flips": 6, "winner_flips": 2, "dead_before": 1,
        "dead_after": 0, "failed": {"length": 0},
    }  # fmt: skip


def test_several_rewards_with_weights_and_a_failing_one_that_costs_its_samples_only(tmp_path: Path) -> None:
    code = """
        def picky(completion):
            if completion.startswith("a"):
                raise ValueError("no a")
            return None if completion.startswith("b") else 1.0
    """
    path = written(tmp_path, code)
    found = rescore(Reader(write(tmp_path / "runs")), {f"{path}:picky": 2.0, LENGTH: 0.5})
    assert found.new_B[:4].tolist() == [0.5, 1.0, 3.5, 4.0]
    assert np.isnan(found.values_B["picky"][:2]).all()
    assert found.summary()["failed"] == {"picky": 2, "length": 0}
    frame = found.frame()
    assert "ValueError: no a" in frame.reason[0] and "does not apply" in frame.reason[1]
    assert frame.reason[2] == "" and frame["rewards/length"].tolist() == [1, 2, 3, 4, 1, 2, 3, 1, 2, 1, 5]


def test_advantages_follow_the_settings_of_the_run(tmp_path: Path) -> None:
    config = RunConfig(scale_rewards="batch", advantage_std="sample", advantage_eps=0.0)
    found = rescore(Reader(write(tmp_path, config)), LENGTH)
    rewards = np.array([1, 2, 3, 4, 1, 2, 3], dtype=float)
    centred = np.array([-1.5, -0.5, 0.5, 1.5, -1, 0, 1])
    assert found.new_advantage_B[:7] == pytest.approx(centred / rewards.std(ddof=1)), "one std a step"
    both = {LENGTH: 1.0, "def twice(completion):\n    return 2.0 * len(completion)\n": 1.0}
    config = config.changed(multi_objective_aggregation="normalize_then_sum")
    found = rescore(Reader(write(tmp_path / "gdpo", config)), both)
    scores = np.concatenate([centred[:4] / centred[:4].std(ddof=1), centred[4:] / 1.0]) * 2
    assert found.new_advantage_B[:7] == pytest.approx(scores / scores.std(ddof=1))


def test_steps_can_be_chosen_and_parts_come_as_they_are_scored(tmp_path: Path) -> None:
    reader = Reader(write(tmp_path))
    found = rescore(reader, LENGTH, since=1, until=1)
    assert found.step_B.tolist() == [1, 1, 1, 1] and found.summary()["groups"] == 2
    with prepared(reader, LENGTH) as sources:
        parts = list(stream(reader, sources))
    assert [group["texts"][0] for part in parts for group in part.groups] == ["a:1", "e:0", "h:1", "a:1"]
    assert sum(len(part.scores) for part in parts) == 11 and len(parts) > 1


def test_a_reward_sees_what_it_saw_in_the_run(tmp_path: Path) -> None:
    code = """
        def seen(prompt, completion, answer, level, step, group, finish_reason, max_length, human_rating):
            assert (prompt, answer, finish_reason, max_length) == ("1+1?", "4", "stop", 77) or prompt != "1+1?"
            assert level in (0, step) and completion in group
            return human_rating
    """
    folder = write(tmp_path / "runs", RunConfig(max_completion_length=77))
    question = Reader(folder).group(0, 0)
    Notes(folder).thumb(Visit(0), question["prompt_id"], "bb:0", True)
    found = rescore(Reader(folder), f"{written(tmp_path, code)}:seen")
    assert found.summary()["failed"] == {"seen": 0}
    assert [place for place, value in enumerate(found.new_B) if not np.isnan(value)] == [1]


def test_what_cannot_be_rescored_is_an_error(tmp_path: Path) -> None:
    reader = Reader(write(tmp_path))
    with pytest.raises(RewardError, match="asks for `nowhere`, which is not there"):
        rescore(reader, "def f(completion, nowhere):\n    return 1.0\n")
    with pytest.raises(RewardError, match="write name=weight"):
        rescore(reader, "correct=much")
    with pytest.raises(RunError, match="no recorded samples in that part"):
        rescore(reader, "correct", since=9)


def test_a_notebook_gets_a_frame_with_its_summary(tmp_path: Path) -> None:
    folder = write(tmp_path)
    frame = workbench.rescore(folder.path, [RewardSpec(name="correct", weight=3.0), LENGTH], steps=(0, 0))
    assert list(frame.step.unique()) == [0] and len(frame) == 7
    assert frame.new_reward.tolist() == [1, 2, 3, 4, 1, 2, 3], "no answer tag: correct gives 0"
    assert frame.attrs["summary"]["samples"] == 7
    assert frame.text.tolist()[:2] == ["a:1", "bb:0"] and frame.question[4] == "2+2?"


def test_the_command_prints_the_same_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "runs")
    path = written(tmp_path, LENGTH)
    arguments = ["rescore", folder.id, "--runs", str(folder.root), "--reward", f"{path}:length"]
    assert cli.main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = ("samples", "changed", "winner_flips", "dead_before", "dead_after")
    assert [printed[name] for name in names] == [11, 8, 2, 1, 0] and printed["seconds"] > 0
    assert cli.main(arguments) == 0
    assert "another winner              2 groups" in capsys.readouterr().out
    assert cli.main([*arguments[:-1], "no_such"]) == 2
    assert "Reward 'no_such' is not known" in capsys.readouterr().err
