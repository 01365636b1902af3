"""Changing living runs and forking them: what is sent, what is refused, and where a fork begins. No model is loaded."""

import json
from pathlib import Path

import pytest

from tests.helpers import FAKE_WORKER, Yard, wait_until
from workbench import launch
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RewardError, RunError
from workbench.launch import preflight, steer
from workbench.record import checkpoints
from workbench.record.folder import RunFolder, create
from workbench.record.reader import Reader
from workbench.record.writer import Writer
from workbench.rewards import versions
from workbench.rewards.api import reward_input
from workbench.train.reward_pools import RewardPools

FIVES = "def fives(completion: str) -> float:\n    return float('5' in completion)\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of 50 steps with its rewards, and a checkpoint behind step 10 at which beta was .02."""
    report = preflight.check(RunConfig.build(None, {"run_name": "parent"}))
    folder = create(tmp_path / "runs", report.config, rewards=report.rewards, files=dict(report.files))
    then = report.config.changed(beta=0.02)

    def write(place: Path) -> None:
        (place / "model.safetensors").write_bytes(b"weights")
        (place / "state.json").write_text(
            json.dumps({"step": 10, "version": 10, "config": then.model_dump(mode="json")})
        )

    checkpoints.save(
        folder,
        10,
        write,
        {"needs": {"run": {"config.json": "of the parent"}, "model": {"model.safetensors": "the same"}}},
    )
    return folder


def test_settings_are_checked_against_what_they_are_now(run: RunFolder) -> None:
    assert steer.commands_for(run, {"beta": "0.1"}) == [steer.NewCommand("set", {"beta": 0.1})]
    for values, field, words in (
        ({"beta": -1}, "beta", "cannot be negative"),
        ({"steps": 9}, "steps", "cannot change while a run goes on"),
        ({"max_completion_length": 5000}, "max_completion_length", "reads at most 1024 tokens"),
        ({"rewards": "nope=1"}, "rewards", "is not known"),
        ({"rewards": "correct=0"}, "rewards", "No reward counts"),
    ):
        with pytest.raises(ConfigError) as refused:
            steer.commands_for(run, values)
        assert words in refused.value.problems[field]


def test_settings_now_follow_the_changes_of_the_record(run: RunFolder) -> None:
    with Writer(run, run.config()) as writer:
        writer.event("setting_changed", {"temperature": {"from": 1.0, "to": 1.3}}, 4)
    assert steer.current_config(run).temperature == 1.3 and run.config().temperature == 1.0


def test_new_reward_code_is_sent_once_and_named_by_its_hash(run: RunFolder, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(FIVES)
    sent, change = steer.commands_for(run, {"rewards": f"correct=1,{script}:fives=0.5"})
    [version] = sent.args["files"]
    assert sent.command == "rewards" and sent.args["files"][version] == FIVES
    assert [(one["weight"], one["version"]) for one in change.args["rewards"]] == [(1.0, ""), (0.5, version)]
    versions.receive(sent.args["files"], run.rewards)
    # What the run has need not be sent again, whatever its weight; the page sends specs as it got them.
    again = steer.commands_for(
        run,
        {"rewards": [{**change.args["rewards"][0]}, {**change.args["rewards"][1], "weight": 2}]},
        fresh=False,
    )
    assert [order.command for order in again] == ["set"]
    script.write_text(FIVES.replace("5' in", "7' in"))
    [newer, _] = steer.commands_for(run, {"rewards": f"correct=1,{script}:fives=0.5"})
    assert set(newer.args["files"]) != {version}


def test_code_that_is_not_what_it_is_called_is_refused(run: RunFolder) -> None:
    with pytest.raises(RewardError, match="is not version 0123456789abcdef"):
        versions.receive({"0123456789abcdef": FIVES}, run.rewards)
    with pytest.raises(RewardError, match="is not version"):
        versions.receive({"../../etc/passwd": FIVES}, run.rewards)
    assert not list(run.path.rglob("passwd*"))


def test_the_pool_is_exchanged_only_when_its_rewards_are_others(run: RunFolder, tmp_path: Path) -> None:
    config, records = run.config(), run.about()["rewards"]
    script = tmp_path / "mine.py"
    script.write_text(FIVES)
    sent, change = steer.commands_for(run, {"rewards": f"correct=1,{script}:fives=0.5"})
    with RewardPools(config, records, run.rewards) as reward_pools:
        first = reward_pools.of(config)
        assert reward_pools.of(config.changed(beta=0.5)) is first and reward_pools.names == [
            "correct",
            "format",
        ]
        changed = config.live_changed(change.args)
        with pytest.raises(RewardError, match="has no version"):  # its code has not come yet
            reward_pools.of(changed)
        assert reward_pools.of(config) is first
        versions.receive(sent.args["files"], run.rewards)
        assert reward_pools.of(changed) is not first and reward_pools.names == ["correct", "fives"]
        rows = [{"group": 0, "answer": "5", "completion": text} for text in ("<answer>5</answer>", "no")]
        values = [
            dict(score.values) for score in reward_pools.of(changed).score_inputs(reward_input.of_rows(rows))
        ]
        assert values == [{"correct": 1.0, "fives": 1.0}, {"correct": 0.0, "fives": 0.0}]


def test_a_fork_begins_at_the_last_checkpoint_at_or_before_its_step(run: RunFolder) -> None:
    assert [steer.fork_point(run, step).step for step in (0, 9, 10, 49)] == [0, 0, 10, 10]
    assert (steer.fork_point(run, 9).config.beta, steer.fork_point(run, 12).config.beta) == (0.0, 0.02)
    with pytest.raises(RunError, match="begins at 0"):
        steer.fork_point(run, -1)


def test_a_fork_is_a_run_with_a_parent_its_checkpoint_and_its_own_settings(
    run: RunFolder, tmp_path: Path
) -> None:
    child = steer.fork(run, 12, {"beta": "0.3"}, tmp_path / "other", worker=FAKE_WORKER)
    try:
        assert launch.state(child).step >= 10  # also while it comes up, or waits for the device
        assert child.about()["parent"] == {"run": run.id, "step": 10} and child.root == tmp_path / "other"
        assert (child.config().beta, child.config().steps, child.config().run_name) == (0.3, 50, None)
        place = checkpoints.latest(child)
        assert place is not None and (place / "model.safetensors").read_bytes() == b"weights"
        state = json.loads((place / "state.json").read_text())
        assert (state["step"], state["config"]["beta"]) == (10, 0.3)
        # Its base model has to be the parent's; its settings and prompts need not.
        assert checkpoints.read_manifest(place)["meta"] == {
            "needs": {"model": {"model.safetensors": "the same"}}
        }
        parents = checkpoints.at(run, 10)
        assert (
            json.loads((parents / "state.json").read_text())["config"]["beta"] == 0.02
        )  # which stays as it was
        assert [reward["sha"] for reward in child.about()["rewards"]] == [
            reward["sha"] for reward in run.about()["rewards"]
        ]
    finally:
        launch.stop(child, grace=0, kill_after=0)


def test_a_fork_refuses_what_its_weights_do_not_allow(run: RunFolder) -> None:
    begin = steer.fork_point(run, 10)
    with pytest.raises(ConfigError) as refused:
        steer.fork_config(run, begin, {"dtype": "bfloat16"})
    assert "Fork from step 0" in refused.value.problems["dtype"]
    assert steer.fork_config(run, steer.fork_point(run, 0), {"dtype": "bfloat16"}).dtype == "bfloat16"
    with pytest.raises(ConfigError) as short:
        steer.fork_config(run, begin, {"steps": 10})
    assert "begins behind step 10" in short.value.problems["steps"]


def test_a_fork_from_the_last_step_goes_on_as_long_again(run: RunFolder) -> None:
    last = steer.ForkPoint(50, run.config(), None)
    assert steer.fork_config(run, last, {}).steps == 100


def test_a_damaged_checkpoint_is_passed_over(run: RunFolder) -> None:
    (checkpoints.at(run, 10) / "model.safetensors").unlink()
    assert steer.fork_point(run, 12).step == 0


def test_a_living_run_replies_to_what_it_was_sent(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    try:
        folder = yard.start(steps=5000, step_seconds=0.02)
        yard.reaches(folder, "running")
        answer = steer.send_and_wait(folder, {"beta": 0.1})
        assert answer["ok"] and answer["args"] == {"beta": 0.1}
        ids = steer.send(folder, {"temperature": 1.2})
        events = wait_until(
            lambda: [e for e in Reader(folder).events(kind="command") if e["data"]["id"] in ids]
        )
        assert events[0]["data"]["args"] == {"temperature": 1.2}
    finally:
        yard.close()
