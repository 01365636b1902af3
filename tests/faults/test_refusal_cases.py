"""What a run needs to go on exactly: what is missing or was changed is named, and accepted only by a warm start."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flow.test_loop import SMALL
from tests.helpers import FAKE_WORKER, Yard, wait_until
from workbench import api, cli, launch
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RunError
from workbench.core.estimate import EMBEDDED
from workbench.launch import local, preflight
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.status import Status
from workbench.train.grpo import train

TWO = SMALL | {"steps": 2, "save_steps": 1, "eval_steps": 2, "prompts_per_step": 2, "num_generations": 2, "max_completion_length": 12,
               "eval_problems": 1, "watched_prompts": 0, "beta": 0.04}  # fmt: skip


def go_on(folder: RunFolder, *, warm_start: bool = False, stop_after: int | None = None) -> None:
    with Control(folder, Status()) as control:
        control.warm_start = warm_start
        if stop_after is not None:
            control.progress = lambda step, steps: step == stop_after and control.request_stop("the test")  # type: ignore[method-assign,assignment,return-value]
        train(folder.config(), folder, control)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two steps on a model folder and a data file of its own, stopped after the first."""
    place = tmp_path_factory.mktemp("stopped")
    shutil.copytree(EMBEDDED, place / "model")
    rows = [{"prompt": f"Chain: {n}+{n}", "answer": str(2 * n % 10), "hint": n} for n in range(8)]
    (place / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig.build("trl-default", {**TWO, "model": str(place / "model"), "task": "data", "data": str(place / "sums.jsonl"),
                                             "rewards": "correct=1"})  # fmt: skip
    report = preflight.check(config)
    assert report.problems == {}
    folder = record.create(place / "runs", report.config, rewards=report.rewards, files=report.files)
    go_on(folder, stop_after=1)
    assert [kept.step for kept in checkpoints.listing(folder)] == [1]
    return folder


@pytest.fixture
def run(stopped: RunFolder, tmp_path: Path) -> Iterator[RunFolder]:
    """A copy of it that may be harmed, and its surroundings put back afterwards."""
    place = stopped.root.parent
    kept = {path: path.read_bytes() for path in (place / "sums.jsonl", *(place / "model").iterdir())}
    yield RunFolder(shutil.copytree(stopped.path, tmp_path / stopped.id))
    for path, content in kept.items():
        path.write_bytes(content)


def newest(run: RunFolder, name: str) -> Path:
    return run.checkpoints / "step-000001" / name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def another_hint(path: Path) -> None:
    path.write_text(path.read_text().replace('"hint": 3', '"hint": 4'))


def another_row(path: Path) -> None:
    path.write_text(path.read_text().replace("Chain: 3+3", "Chain: 3+4"))


def another_weight(path: Path) -> None:
    """One bit, in none of the mebibytes that a quick check would read, and with the time of before."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_constant(path: Path) -> None:
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "rms_norm_eps": 1e-3}))


Harm = Callable[[RunFolder], object]
HARMS: dict[str, tuple[Harm, str]] = {
    "no optimiser": (lambda run: newest(run, "optimizer.safetensors").unlink(), r"step-000001: optimizer.safetensors is missing"),
    "torn optimiser": (lambda run: cut(newest(run, "optimizer.safetensors")), r"optimizer.safetensors has \d+ bytes instead of"),
    "no state": (lambda run: newest(run, "state.json").unlink(), r"state.json is missing"),
    "other prompts": (lambda run: another_row(Path(str(run.config().data))), r"the prompts of .*sums.jsonl changed after"),
    "another column, which only rewards read": (lambda run: another_hint(Path(str(run.config().data))), r"the prompts of .*sums.jsonl changed after"),
    "another constant": (lambda run: another_constant(Path(run.config().model) / "config.json"), r"config.json of the base model .* changed after"),
    "other model": (lambda run: another_weight(Path(run.config().model) / "model.safetensors"), r"model.safetensors of the base model .* changed after"),
    "other settings": (lambda run: run.config_path.write_text(run.config_path.read_text().replace('"beta": 0.04', '"beta": 0.08')), r"config.json changed after"),
}  # fmt: skip


@pytest.mark.parametrize("what", HARMS)
def test_case_41_what_a_run_needs_is_named_where_it_is_missing_or_changed(run: RunFolder, what: str) -> None:
    harm, words = HARMS[what]
    harm(run)
    with pytest.raises(RunError, match=words) as refused:
        go_on(run)
    assert "--warm-start" in str(refused.value) and Reader(run).steps() == [0]


def test_case_41_a_warm_start_goes_on_without_the_optimiser_and_says_so(run: RunFolder) -> None:
    newest(run, "optimizer.safetensors").unlink()
    go_on(run, warm_start=True)
    assert Reader(run).steps() == [0, 1] and (run.final / "model.safetensors").is_file()
    [found] = Reader(run).events(kind="resumed")
    assert found["data"]["step"] == 1 and "optimizer.safetensors was missing" in found["data"]["notes"]


def test_case_41_an_older_whole_checkpoint_is_taken_and_the_torn_one_is_named(
    stopped: RunFolder, tmp_path: Path
) -> None:
    folder = RunFolder(shutil.copytree(stopped.path, tmp_path / stopped.id))
    go_on(folder)
    assert [kept.step for kept in checkpoints.listing(folder)] == [1, 2]
    cut(folder.checkpoints / "step-000002" / "model.safetensors")
    go_on(folder)
    found = Reader(folder).events(kind="resumed")[-1]["data"]
    assert found["step"] == 1 and any(
        "step-000002 was passed over: model.safetensors has" in note for note in found["notes"]
    )
    checkpoints.at(folder, 2)  # written anew


def test_case_41_a_fork_is_refused_a_base_model_that_is_not_its_parents(run: RunFolder) -> None:
    child = record.create(
        run.root, run.config(), rewards=run.about()["rewards"],
        files={path.name: path.read_text() for path in run.rewards.iterdir()},
        parent={"run": run.id, "step": 1}, prepare=lambda folder: checkpoints.copy_into(run.checkpoints / "step-000001", folder, {}),
    )  # fmt: skip
    another_weight(Path(run.config().model) / "model.safetensors")
    with pytest.raises(RunError, match=r"model.safetensors of the base model .* changed after"):
        go_on(child)


def test_case_41_a_checkpoint_of_an_earlier_version_is_taken_and_says_what_it_cannot_prove(
    run: RunFolder,
) -> None:
    manifest = json.loads(newest(run, "manifest.json").read_text())
    newest(run, "manifest.json").write_text(json.dumps({**manifest, "meta": {}}))
    go_on(run)
    [found] = Reader(run).events(kind="resumed")
    assert any("earlier version" in note for note in found["data"]["notes"])


# -- going on with other settings --------------------------------------------------------------------------


@pytest.fixture
def yard(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """Runs that the code under test starts are counting workers too."""
    monkeypatch.setattr(local, "WORKER", FAKE_WORKER)
    return yard


def test_case_44_going_on_with_other_settings_shows_them_and_needs_a_yes(
    yard: Yard, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = yard.start(step_seconds=0.05)
    yard.goes_on(folder)
    stopped = launch.stop(folder)
    options = [
        "resume",
        folder.id,
        "--runs",
        str(yard.root),
        "--set",
        "beta=0.1",
        "--set",
        "num_generations=6",
        "--json",
    ]
    assert cli.main(options) == 2
    shown = capfd.readouterr().err
    assert "beta: 0.0 -> 0.1" in shown and "num_generations: 12 -> 6" in shown and "--yes" in shown
    assert launch.state(folder).over and launch.state(folder).step == stopped.step
    assert cli.main([*options, "--yes"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert found["ok"] and found["run"] == folder.id
    yard.goes_on(folder)
    commands = wait_until(
        lambda: [e["data"] for e in Reader(folder).events(kind="command") if e["data"]["command"] == "set"]
    )
    assert commands[0]["args"] == {"beta": 0.1, "num_generations": 6}


def test_case_44_what_cannot_change_in_a_run_is_refused_before_anything_starts(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.05)
    yard.goes_on(folder)
    launch.stop(folder)
    with pytest.raises(ConfigError, match=r"seed cannot change while a run goes on.*Fork"):
        api.Run(folder).resume(seed=4)
    assert launch.state(folder).over
