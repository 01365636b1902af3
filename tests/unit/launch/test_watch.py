"""What a run's state is, from its last status and its process."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import identity, lifecycle, watch
from workbench.record import folder as record
from workbench.record.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path / "runs", RunConfig.build())


def say(folder: RunFolder, **status: Any) -> launch.RunState:
    now = time.time()
    me = identity.current(
        "-m"
    )  # this very process; pytest's command line need not hold it for the runs that are over
    folder.write_status(
        {
            "state": "running",
            "step": 7,
            "steps": 50,
            "pid": me.pid,
            "create_time": me.create_time,
            "boot_id": me.boot_id,
            "token": "nobody",
            "heartbeat": now,
            "progress_at": now,
            "started": now - 60,
            **status,
        }
    )
    return launch.state(folder)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "alive", lambda who: who.pid == os.getpid())


@pytest.mark.parametrize("word", ["finished", "stopped", "failed"])
def test_a_last_word_stands_whether_or_not_the_process_is_there(folder: RunFolder, word: str) -> None:
    found = say(folder, state=word, ended=5.0, reason="why")
    assert (found.state, found.reason, found.ended, found.over) == (word, "why", 5.0, True)


@pytest.mark.parametrize("word", ["queued", "starting", "running", "paused", "stopping"])
def test_a_process_that_is_gone_without_a_last_word_has_crashed(folder: RunFolder, word: str) -> None:
    folder.log_path.write_text("loading\nstep 7\n")
    found = say(folder, state=word, phase="sample")
    assert found.state == "crashed" and found.over and not found.alive
    assert "step 7, phase sample" in found.reason and "no final status" in found.reason
    assert found.log == ("loading", "step 7")


def test_a_run_of_another_boot_was_interrupted(folder: RunFolder) -> None:
    found = say(folder, boot_id="an older one")
    assert found.state == "interrupted"
    assert "restarted at step 7 (it was running)" in found.reason


def test_a_living_run_is_what_it_says(folder: RunFolder, alive: None) -> None:
    found = say(folder, state="paused", eta=12.5, device="cpu")
    assert (found.state, found.alive, found.over, found.eta, found.device, found.stalled) == (
        "paused",
        True,
        False,
        12.5,
        "cpu",
        "",
    )


def test_no_progress_for_ten_usual_steps_is_a_badge_and_no_state(folder: RunFolder, alive: None) -> None:
    now = time.time()
    assert say(folder, progress_at=now - 400).stalled.startswith("No progress for 7 min")
    assert say(folder, progress_at=now - 400, step_seconds=60.0).stalled == ""
    assert say(folder, progress_at=now - 400, state="paused").stalled == ""
    silent = say(folder, heartbeat=now - 100, progress_at=now - 100)
    assert silent.state == "running" and "no sign of life for 100 s" in silent.stalled


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("workbench: It was ended by signal 9 (SIGKILL).", "signal 9 (SIGKILL)"),
        ("Fatal Python error: Segmentation fault", "Segmentation fault"),
    ],
)
def test_the_log_shows_how_a_crashed_worker_ended(folder: RunFolder, line: str, words: str) -> None:
    folder.log_path.write_text(f"step 7\n{line}\n")
    assert words in say(folder).reason


def test_an_out_of_memory_kill_since_the_start_is_named(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "oom_kills", lambda: 3)
    assert "lack of memory" in say(folder, oom_kills=2).reason
    assert "lack of memory" not in say(folder, oom_kills=3).reason


def test_return_codes_are_put_in_words() -> None:
    assert watch.exit_sentence(-9) == "It was ended by signal 9 (SIGKILL)."
    assert watch.exit_sentence(1) == "It ended with exit code 1."


def test_a_worker_that_never_came_up_has_crashed_once_time_is_up(folder: RunFolder) -> None:
    unborn = {"pid": None, "create_time": 0.0, "token": "of-nobody"}
    assert say(folder, state="starting", started=time.time(), **unborn).state == "starting"
    late = say(folder, state="starting", started=time.time() - 60, **unborn)
    assert late.state == "crashed" and "never came up" in late.reason


@pytest.mark.parametrize("name", ["config.json", "status.json"])
def test_damaged_folders_are_listed_and_harm_no_other(tmp_path: Path, name: str) -> None:
    root = tmp_path / "runs"
    good, bad = (record.create(root, RunConfig.build()) for _ in range(2))
    say(good, state="finished")
    (bad.path / name).write_text('{"sta')
    found = {run.id: run for run in launch.runs(root)}
    assert found[good.id].state == "finished"
    assert found[bad.id].state == "damaged" and name in found[bad.id].reason
    assert launch.runs(tmp_path / "nowhere") == []


def test_the_time_of_earlier_workers_counts_and_the_time_between_them_does_not(folder: RunFolder) -> None:
    now = time.time()
    found = say(folder, state="finished", started=now - 20, ended=now - 5, earlier=100.0)
    assert found.seconds == pytest.approx(115.0)
    crashed = say(folder, state="running", started=now - 500, heartbeat=now - 400, progress_at=now - 400)
    assert crashed.state == "crashed" and crashed.seconds == pytest.approx(100.0)


def test_odd_values_in_a_status_do_no_harm(folder: RunFolder) -> None:
    found = say(folder, state="finished", step="seven", eta="soon", phase=None, ended=[1])
    assert (found.step, found.eta, found.phase, found.ended) == (0, None, "", None)


def test_the_state_is_plain_json(folder: RunFolder) -> None:
    assert say(folder, state="finished").json()["path"] == str(folder.path)


def test_a_run_with_a_torn_status_goes_on_and_the_file_is_set_aside(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "COMING_UP_SECONDS", 0.0)
    submitted: list[RunFolder] = []
    monkeypatch.setattr(lifecycle.PLACE, "submit", lambda folder, **_: submitted.append(folder))
    folder.status_path.write_text("")
    lifecycle.resume(folder)
    assert submitted == [folder]
    assert [path.read_text() for path in folder.path.glob("unreadable-*-status.json")] == [""]
