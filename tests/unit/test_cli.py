"""The command line: options from RunConfig, messages on standard error, exit codes, JSON on the last line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import write_fake_run
from tests.helpers import FAKE_WORKER, wait_until
from workbench import cli, launch
from workbench.commands import runs
from workbench.core.config import settings
from workbench.diagnose import doctor
from workbench.launch import local
from workbench.record import folder as record


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(local, "WORKER", FAKE_WORKER)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "runs"
    for run in record.folders(tmp_path / "runs"):
        if not launch.state(run).over:
            launch.stop(run, grace=0, kill_after=0)


class Output:
    """What one command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out.strip().splitlines()[-1])


@pytest.fixture
def workbench(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> Output:
        code = cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Output(code, out, err)

    return call


def test_a_run_that_finishes_ends_with_zero_and_one_json_object(root: Path, workbench: Any) -> None:
    output = workbench(
        "run", "--preset", "embedded", "--seed", 11, "--steps", 3, "--runs", root, "--wait", "--json"
    )
    assert output.code == 0, output.err
    assert {
        "run_dir",
        "steps",
        "seconds",
        "heldout_sampled_first",
        "heldout_sampled_last",
        "heldout_greedy_first",
        "heldout_greedy_last",
        "mean_length_first",
        "mean_length_last",
    } <= set(output.json)
    assert output.json["steps"] == output.json["step"] == 3 and output.json["state"] == "finished"
    folder = record.find(output.json["run_dir"])
    assert folder.config().seed == 11 and folder.config().steps == 3


def test_any_setting_is_an_option_and_rewards_can_be_given_one_by_one(root: Path, workbench: Any) -> None:
    output = workbench(
        "run",
        "--runs",
        root,
        "--detach",
        "--json",
        "--learning-rate",
        "3e-4",
        "--use-peft",
        "--epsilon_high=none",
        "--reward",
        "correct=1",
        "--reward",
        "format=0.25",
        "--steps",
        "2",
    )
    assert output.code == 0, output.err
    config = record.find(output.json["run_dir"]).config()
    assert (config.learning_rate, config.use_peft, config.epsilon_high) == (3e-4, True, None)
    assert [(spec.name, spec.weight) for spec in config.rewards] == [("correct", 1.0), ("format", 0.25)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--use-peft"], True),
        (["--use_peft", "true"], True),
        (["--use-peft=no"], False),
        (["--no-use-peft"], False),
    ],
)
def test_a_switch_may_be_given_with_and_without_a_value(
    root: Path, workbench: Any, given: list[str], wanted: bool
) -> None:
    output = workbench("run", "--runs", root, "--detach", "--json", "--steps", 1, *given)
    assert output.code == 0, output.err
    assert record.find(output.json["run_dir"]).config().use_peft is wanted


def test_the_help_of_run_lists_every_setting_the_core_ones_first(
    workbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # long names would break into two lines
    text = workbench("run", "--help").out
    places = {info.name: text.find(f"--{info.name.replace('_', '-')} ") for info in settings()}
    assert [name for name, place in places.items() if place < 0] == []
    assert max(places[info.name] for info in settings() if info.core) < min(
        places[info.name] for info in settings() if not info.core
    )
    assert "Default 1e-06." in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--num-generations", "1"], "at least 2 samples"),
        (["--beta", "-1"], "β is the weight of a penalty and cannot be negative"),
        (["--learning-rate", "nan"], "learning_rate = 'nan': must be a finite number"),
        (["--max-completion-length", "5000"], "reads at most 1024 tokens"),
        (["--model", "no/such/folder"], "there is no such folder"),
        (["--preset", "nope"], "preset 'nope' is not known"),
        (["--lerning-rate", "1"], "Did you mean --learning-rate?"),
        (["--task", "data", "--data", "empty.jsonl"], "empty.jsonl"),
        (["--reward", "bad.py:f=1"], "bad.py, line 2"),
        (["--reward", "corect"], "Did you mean correct?"),
        (["--device", "cuda"], "no CUDA device can be used here"),
        (["extra"], "extra"),
    ],
)
def test_what_cannot_be_is_explained_on_standard_error_with_exit_code_2_and_nothing_is_made(
    root: Path, workbench: Any, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str
) -> None:
    Path("empty.jsonl").write_text("")
    Path("bad.py").write_text("def f(completion):\n  return 1 +\n")
    monkeypatch.setattr(launch.lease, "visible_cuda", list)
    output = workbench("run", "--runs", root, *given)
    assert output.code == 2
    assert words in output.err
    assert output.out == "" and "Traceback" not in output.err
    assert record.folders(root) == []


def test_a_runs_folder_that_cannot_be_is_refused(root: Path, workbench: Any) -> None:
    Path("file").write_text("")
    output = workbench("run", "--runs", "file/runs")
    assert output.code == 2 and "Runs cannot be kept in" in output.err and output.out == ""


def test_runs_are_listed_shown_and_stopped(root: Path, workbench: Any) -> None:
    assert workbench("list", "--runs", root, "--json").json == []
    started = workbench("run", "--runs", root, "--detach", "--json", "--steps", 400).json["run"]
    wait_until(lambda: launch.state(record.find(started, root)).step > 1)
    listed = workbench("list", "--runs", root, "--json").json
    assert [(one["id"], one["state"], one["steps"]) for one in listed] == [(started, "running", 400)]
    shown = workbench("show", started, "--runs", root, "--json").json
    assert shown["state"] == "running" and shown["config"]["steps"] == 400 and shown["final_model"] is None
    by_path = workbench("show", root / started, "--json").json
    assert by_path["id"] == started
    stopped = workbench("stop", started, "--runs", root, "--json")
    assert stopped.code == 0 and stopped.json["state"] == "stopped"
    assert "stopped" in workbench("show", started, "--runs", root).out
    assert started in workbench("list", "--runs", root).out


def test_a_run_that_does_not_finish_ends_with_one_and_its_reason(
    root: Path, workbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = record.create
    monkeypatch.setattr(
        record,
        "create",
        lambda *a, files=None, **k: real(  # the counting loop reads what to do from its folder
            *a, files={**(files or {}), "fake.json": '{"raise_at": 1, "raise": "user"}'}, **k
        ),
    )
    output = workbench("run", "--runs", root, "--steps", 3, "--wait", "--json")
    assert output.code == 1
    assert "failed: the model has no pad token" in output.err
    assert output.json["state"] == "failed"


def test_commands_to_no_worker_or_about_nothing_are_refused_with_2(root: Path, workbench: Any) -> None:
    for command in (
        ["show", "none"],
        ["stop", "none"],
        ["pause", "none"],
        ["set", "none", "beta=1"],
        ["export", "none", "--model", "x"],
    ):
        output = workbench(*command, "--runs", root)
        assert output.code == 2 and "No run 'none' here" in output.err
    done = workbench("run", "--runs", root, "--steps", 1, "--wait", "--json").json["run"]
    assert "is finished" in workbench("pause", done, "--runs", root).err
    assert "name=value" in workbench("set", done, "beta", "--runs", root).err
    assert "needs --step" in workbench("show", done, "--group", 0, "--runs", root).err
    assert workbench("doctor", "--programs", "x").code == 2


def test_interrupting_the_following_leaves_the_run_alone(
    root: Path, workbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(folder: Any, draw: bool) -> Any:
        wait_until(lambda: launch.state(folder).step > 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "follow", interrupt)
    output = workbench("run", "--runs", root, "--steps", 400)
    assert output.code == 130 and "The run goes on" in output.err
    [one] = launch.runs(root)
    assert one.state == "running"


def test_settings_can_be_read_by_programs(workbench: Any) -> None:
    listed = workbench("settings", "--json").json
    assert [one["name"] for one in listed] == [info.name for info in settings()]
    assert "num_generations" in workbench("settings").out


def test_the_doctor_says_what_this_machine_offers(root: Path, workbench: Any) -> None:
    found = workbench("doctor", "--json", "--runs", root).json
    assert found["device"] in ("cpu", "cuda", "mps") and found["busy"] == []


def test_doctor_shows_a_runs_alarms_and_its_loss(tmp_path, capsys):
    run = write_fake_run(tmp_path, steps=16, groups=4, samples=3)
    assert cli.main(["doctor", run.id, "--runs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "Why is the loss what it is?" in output and "Alarms: 1 on, none over." in output
    # The run is over, so a change is a fork from where the alarm began.
    assert f"workbench fork {run.id} --step 14 --set temperature=1.2" in output
    assert (
        doctor.as_command({"command": "set", "args": {"temperature": 1.2}})
        == "workbench set RUN temperature=1.2"
    )
    assert f"workbench fork {run.id} --step 14 --set beta=0.04" in output
    assert cli.main(["doctor", run.id, "--runs", str(tmp_path), "--json"]) == 0
    [alarm] = json.loads(capsys.readouterr().out)["alarms"]
    assert alarm["name"] == "entropy" and alarm["condition"].startswith("below 27 % of its start")


def test_output_that_is_not_read_to_its_end_is_no_fault(root: Path) -> None:
    command = [sys.executable, "-m", "workbench", "settings", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0 and process.stderr.read() == b""
