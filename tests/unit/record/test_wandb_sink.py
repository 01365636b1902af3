"""wandb gets metrics, settings and groups, offline and quietly; whatever goes wrong in it, the run goes
on."""

import json
import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest

from tests.fakes import fake_config, make_step
from workbench.core.types import StepRecord
from workbench.record import folder as record
from workbench.record import wandb_sink
from workbench.record.wandb_sink import WandbSink

RUN = """
import sys
from tests.fakes import fake_config, make_step
from workbench.record import folder as record
from workbench.record.wandb_sink import WandbSink
config = fake_config(groups=2, samples=3, steps=4, run_name="canary run")
folder = record.create(sys.argv[1], config)
with WandbSink(folder, config) as sink:
    sink.log(make_step(0, steps=4, groups=2, samples=3, kind="eval", mode="greedy", config=config))
    for step in range(4):
        sink.log(make_step(step, steps=4, groups=2, samples=3, config=config))
print(folder.path, sink.dropped, repr(sink.problem))
"""


def test_a_run_is_read_back_by_wandbs_own_reader_and_holds_no_secret(tmp_path: Path) -> None:
    secrets = {
        "WANDB_API_KEY": "c0ffee00" * 5,
        "HF_TOKEN": "hf_" + "canary" * 5,
        "OPENAI_API_KEY": "sk-canary-canary-canary",
    }
    process = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        env={**os.environ, **secrets, "WANDB_MODE": "offline", "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[3],
    )
    path, dropped, problem = process.stdout.strip().rsplit(" ", 2)
    assert (
        (dropped, problem) == ("0", "''")
        and process.stdout.count("\n") == 1
        and "wandb" not in process.stderr
    )
    for file in Path(path).rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(secret.encode() in content for secret in secrets.values()), file
    assert not (tmp_path / ".local").exists()  # nothing is left outside the run folder

    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", f"{path}/wandb"]
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in read.stdout.splitlines()]
    history = [entry["history"]["item"] for entry in found if entry["type"] == "history"]
    config = next(entry["run"]["config"]["update"] for entry in found if entry["type"] == "run")
    assert config["run_name"] == "canary run" and config["num_generations"] == 3
    assert [row["step"] for row in history] == [0, 0, 1, 2, 3]
    assert (
        history[0]["heldout/greedy/accuracy"]
        == make_step(0, steps=4, groups=2, samples=3, kind="eval", mode="greedy").metrics[
            "heldout/greedy/accuracy"
        ]
    )
    assert history[2]["reward"] == make_step(1, steps=4, groups=2, samples=3).metrics["reward"]
    tables = list(Path(path).glob("wandb/offline-run-*/files/media/table/groups_*.json"))
    rows = [row for table in tables for row in json.loads(table.read_text())["data"]]
    assert len(rows) == 8 and all(len(row) == len(wandb_sink.GROUP_COLUMNS) for row in rows)


def test_a_wandb_that_breaks_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise SystemExit("no network, no key, no luck")

    monkeypatch.setattr(wandb_sink, "_start", refuse)
    config = fake_config(groups=2, samples=3)
    with WandbSink(record.create(tmp_path, config), config) as sink:
        for _ in range(200):
            sink.log(known())
    assert "no luck" in sink.problem
    assert "The run folder has everything" in capsys.readouterr().err


def test_a_wandb_that_hangs_costs_only_what_it_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake = threading.Event()
    monkeypatch.setattr(wandb_sink, "_start", lambda *arguments: wake.wait(60))
    config = fake_config(groups=2, samples=3)
    sink = WandbSink(record.create(tmp_path, config), config, max_pending=3).__enter__()
    for _ in range(10):
        sink.log(known())
    sink.close(timeout=0.1)
    assert sink.dropped == 7 and "did not keep up" in sink.problem
    wake.set()


def test_switched_off_it_does_nothing(tmp_path: Path) -> None:
    config = fake_config(wandb="off")
    folder = record.create(tmp_path, config)
    with WandbSink(folder, config) as sink:
        sink.log(known())
    assert not folder.wandb.exists() and sink.problem == ""


@cache
def known() -> StepRecord:
    """The same small record again and again."""
    return make_step(0, groups=2, samples=3)
