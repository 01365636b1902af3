"""A real run, changed while it lives, and a fork of it that changes nothing: it must repeat its parent exactly."""

from pathlib import Path

import pytest

from tests.recorded import SMALL, finish
from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import preflight, steer
from workbench.record import checkpoints
from workbench.record.reader import Reader

FIVES = "def fives(completion: str) -> float:\n    return float('5' in completion)\n"
SAME = ("reward", "entropy", "kl", "loss", "grad_norm", "beta")


@pytest.mark.slow
def test_changes_take_effect_at_their_step_and_an_unchanged_fork_repeats_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(FIVES)
    settings = {**SMALL, "prompts_per_step": 3, "num_generations": 4, "steps": 6, "eval_steps": 6}
    run = preflight.start(RunConfig.build(None, settings), tmp_path / "runs")
    assert launch.send_and_wait(run, "pause")["text"] == "paused before step 0"
    assert steer.send_and_wait(run, {"beta": 0.05, "num_generations": 5})["ok"]
    assert launch.send_and_wait(run, "checkpoint")["text"] == "checkpoint after step 0 written"
    assert checkpoints.at(
        run, 0
    )  # it lies there although the run is still paused, and what is changed now comes behind it
    assert launch.state(run).state == "paused"
    answer = steer.send_and_wait(run, {"rewards": f"correct=1,{script}:fives=0.5"})
    assert answer["ok"] and "fives x 0.5 @" in answer["text"]
    script.unlink()  # the run has its own copy
    assert launch.send_and_wait(run, "resume")["ok"]
    finish(run)
    reader = Reader(run)
    series = reader.series()["train"]
    assert series["beta"] == [0.05] * 6
    for step in (0, 5):
        [first, *_] = reader.groups(step)
        group = reader.group(step, first["k"])
        assert len(group["samples"]) == 5
        for sample in group["samples"]:
            fives = float("5" in sample["text"])
            assert sample["rewards"]["fives"] == fives
            assert sample["reward"] == sample["rewards"]["correct"] + 0.5 * fives

    child = steer.fork(run, 3)
    assert child.about()["parent"] == {"run": run.id, "step": 3}
    finish(child)
    again = Reader(child).series()["train"]
    assert again["step"] == [3, 4, 5]
    for name in SAME:
        assert again[name] == series[name][3:], name
    for step in (3, 5):
        groups = [[reader.group(step, k) for k in range(3)] for reader in (Reader(run), Reader(child))]
        texts = [[sample["text"] for group in side for sample in group["samples"]] for side in groups]
        assert texts[0] == texts[1]
