"""The workbench from a notebook: runs as objects, rewards as functions."""

import json

import pytest

import workbench
from tests.brief import brief
from tests.fakes import write_fake_run
from tests.helpers import FAKE_WORKER, Yard, wait_until
from workbench import api, launch
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import ConfigError, RewardError, RunError
from workbench.launch import local
from workbench.launch.follow import follow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    folder = write_fake_run(tmp_path_factory.mktemp("api") / "runs", steps=12)
    return api.open_run(folder.path)


@pytest.fixture
def yard(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """Runs that the code under test starts are counting workers too."""
    monkeypatch.setattr(local, "WORKER", FAKE_WORKER)
    return yard


def test_the_names_of_the_package_are_those_of_the_notebook() -> None:
    assert workbench.RunConfig is RunConfig and workbench.open_run is api.open_run
    assert set(workbench.__all__) == set(api.__all__) <= set(dir(workbench))
    assert (workbench.embedded_model() / "config.json").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        workbench.nothing  # noqa: B018


def test_a_run_reads_as_frames_and_groups(run: api.Run) -> None:
    metrics = run.metrics("reward")
    assert list(metrics[metrics["kind"] == "train"]["step"]) == list(range(12))
    group = run.group(3, 0)
    samples = run.samples(3)
    assert [sample["text"] for sample in group["samples"]] == list(samples[samples["k"] == 0]["text"])
    assert run.state.state in repr(run) and run.id in repr(run)
    assert [one.id for one in api.runs(run.path.parent)] == [run.id]


def test_the_summary_is_taken_from_both_ends(run: api.Run) -> None:
    found, samples, metrics = run.summary(), run.samples(), run.metrics()
    assert found["mean_length_first"] == pytest.approx(samples[samples["step"] < 5]["length"].mean())
    assert found["mean_length_last"] == pytest.approx(samples[samples["step"] >= 7]["length"].mean())
    for mode in ("sampled", "greedy"):
        checks = metrics[(metrics["kind"] == "eval") & (metrics["mode"] == mode)][f"heldout/{mode}/accuracy"]
        assert (found[f"heldout_{mode}_first"], found[f"heldout_{mode}_last"]) == (
            checks.iloc[0],
            checks.iloc[-1],
        )
    json.dumps(found, allow_nan=False)


def test_rewards_may_be_names_functions_or_specs_with_or_without_weights() -> None:
    assert api.reward_specs({"correct": 1, brief: 0.2}) == [
        RewardSpec(name="correct", weight=1.0), RewardSpec(name="brief", weight=0.2)]  # fmt: skip
    given = ["correct=0.5", brief, RewardSpec(name="format", weight=0.1, enabled=False)]
    assert [(spec.name, spec.weight, spec.enabled) for spec in api.reward_specs(given)] == [
        ("correct", 0.5, True), ("brief", 1.0, True), ("format", 0.1, False)]  # fmt: skip


def test_a_reward_is_tried_on_texts_rows_and_a_run(run: api.Run) -> None:
    tried = api.try_reward(brief, ["short", "long " * 30])
    assert list(tried["value"]) == [1.0, 0.0] and list(tried["reason"]) == ["", ""]
    assert list(api.try_reward(brief, ["short"], limit=3)["value"]) == [0.0]
    rows = [
        {"completion": "<answer>4</answer>", "prompt": "2+2", "answer": "4"},
        {"completion": "5", "answer": "4"},
    ]
    assert list(api.try_reward("correct", rows)["value"]) == [1.0, 0.0]
    again = api.try_reward("correct", run)
    assert len(again) == len(run.samples(11)) and set(again["value"]) <= {0.0, 1.0}
    with pytest.raises(RewardError, match="corect"):
        api.try_reward("corect", ["x"])


def test_starting_takes_a_config_or_a_preset_and_says_what_is_wrong(yard: Yard) -> None:
    with pytest.raises(ConfigError, match="not both"):
        api.start(RunConfig.build(), preset="embedded", runs=yard.root)
    with pytest.raises(ConfigError) as error:
        api.start(steps=3, num_generations=1, runs=yard.root)
    assert set(error.value.problems) == {"num_generations"}
    started = api.start(steps=3, device="cpu", runs=yard.root, rewards={"correct": 1.0, brief: 0.2})
    yard.started.append(started.folder)
    assert started.follow(draw=False).state == "finished"
    assert [record["name"] for record in started.folder.about()["rewards"]] == ["correct", "brief"]
    assert started.final_model is None


def test_a_living_run_takes_commands_and_replies(yard: Yard) -> None:
    started = api.start(steps=2000, device="cpu", runs=yard.root)
    yard.started.append(started.folder)
    yard.goes_on(started.folder)
    assert started.pause().startswith("paused before step")
    with pytest.raises(ConfigError, match="beta"):
        started.set(beta=-1)
    assert started.set(beta=0.1) == "set taken"
    assert started.resume() == "goes on"
    assert [event["data"]["command"] for event in started.events("command")] == ["pause", "set", "resume"]
    assert started.stop().state == "stopped"
    with pytest.raises(RunError, match="nobody is there"):
        started.pause()


def test_a_run_that_ends_before_it_replies_says_so(yard: Yard) -> None:
    folder = yard.start(hang_at=1)
    wait_until((folder.path / "hanging").exists)
    folder.put("stop", {"grace": 0.5})
    with pytest.raises(RunError, match="ended before it answered checkpoint"):
        launch.send_and_wait(folder, "checkpoint", timeout=20)


def test_following_draws_to_the_end_and_returns_the_state(
    yard: Yard, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = yard.start(steps=5)
    assert follow(folder).state == "finished"
    assert "5/5" in capsys.readouterr().err


def test_a_script_that_is_loaded_for_its_reward_starts_no_second_run(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_REWARD_PROCESS", "1")
    with pytest.raises(RewardError, match="inside a reward process"):
        api.start(runs=yard.root, steps=2)
    assert launch.runs(yard.root) == []
