"""A worker from its start to its final status, as a real process around a loop that only counts."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers import Yard, wait_until
from workbench import launch
from workbench.core.errors import RunError
from workbench.launch import identity, lease, watch
from workbench.record.files import STATE_FOLDER
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader


def replies(folder: RunFolder) -> list[dict[str, Any]]:
    """The replies to commands."""
    return [event["data"] for event in Reader(folder).events(kind="command")]


def worker_of(folder: RunFolder) -> psutil.Process:
    who = wait_until(lambda: watch.identity_of(folder.status()), what="the worker's identity")
    return psutil.Process(who.pid)


def test_a_run_counts_to_its_end_and_says_so(yard: Yard) -> None:
    folder = yard.start(steps=5)
    done = yard.reaches(folder, "finished")
    assert (done.step, done.steps, done.reason) == (5, 5, "")
    assert done.started is not None and done.ended is not None and done.ended >= done.started
    wait_until(lambda: not launch.state(folder).alive, what="the process is gone and reaped")
    assert folder.log_path.read_text() == ""


def test_a_worker_is_detached_private_and_knows_its_run_by_a_token(yard: Yard) -> None:
    folder = yard.start()
    yard.goes_on(folder)
    process = worker_of(folder)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert (
        folder.status()["token"] in process.cmdline()
        and process.environ()[identity.TOKEN_VARIABLE] == folder.status()["token"]
    )
    assert os.readlink(f"/proc/{process.pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{process.pid}/fd/1") == str(folder.log_path)
    assert folder.status_path.stat().st_mode & 0o077 == 0 and folder.log_path.stat().st_mode & 0o077 == 0
    assert "torch" not in " ".join(map_.path for map_ in process.memory_maps())


def test_a_graceful_stop_ends_between_two_steps(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.1)
    yard.goes_on(folder)
    done = launch.stop(folder)
    assert (done.state, done.reason) == ("stopped", "stop was asked for")
    assert 0 < done.step < done.steps
    assert [event["command"] for event in replies(folder)] == ["stop"]


def test_terminals_and_keyboards_do_not_reach_a_worker_and_sigterm_is_a_stop(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.1)
    yard.goes_on(folder)
    process = worker_of(folder)
    for number in ("SIGINT", "SIGHUP"):
        process.send_signal(getattr(__import__("signal"), number))
    yard.goes_on(folder)
    process.terminate()
    assert "SIGTERM" in yard.reaches(folder, "stopped").reason


def test_pause_settings_and_resume_travel_through_the_inbox(yard: Yard) -> None:
    folder = yard.start()
    yard.goes_on(folder)
    launch.send(folder, "pause")
    paused = yard.reaches(folder, "paused")
    launch.send(folder, "set", {"beta": 0.02})
    wait_until(
        lambda: any(event["command"] == "set" for event in replies(folder)),
        what="the setting is taken while paused",
    )
    assert launch.state(folder).step == paused.step
    launch.send(folder, "resume")
    yard.goes_on(folder)
    assert [(event["command"], event["ok"]) for event in replies(folder)] == [
        ("pause", True),
        ("set", True),
        ("resume", True),
    ]
    assert replies(folder)[0]["text"] == f"paused before step {paused.step}"


def test_no_worker_replies_for_a_run_that_is_over(yard: Yard) -> None:
    folder = yard.start(steps=1)
    yard.reaches(folder, "finished")
    with pytest.raises(RunError, match="is finished: nobody is there to pause"):
        launch.send(folder, "pause")
    with pytest.raises(RunError, match="all 1 steps are done"):
        launch.resume(folder)
    assert launch.stop(folder).state == "finished"


def test_a_users_mistake_is_shown_in_its_own_words_and_the_traceback_stays_in_the_log(yard: Yard) -> None:
    folder = yard.start(raise_at=2, **{"raise": "user"})
    done = yard.reaches(folder, "failed")
    assert done.reason == "the model has no pad token"
    assert done.step == 2 and "Traceback" in folder.log_path.read_text()
    assert folder.error()["user"] is True and folder.error()["type"] == "ModelError"


def test_a_mistake_of_ours_is_shown_with_its_type(yard: Yard) -> None:
    folder = yard.start(raise_at=0)
    done = yard.reaches(folder, "failed")
    assert done.reason == "ZeroDivisionError: the model has no pad token"
    assert folder.error()["user"] is False and any("Traceback" in line for line in done.log)


def test_secrets_of_the_environment_stay_out_of_errors_and_logs(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "the model has no pad")  # stands in the message of the error
    folder = yard.start(raise_at=0)
    done = yard.reaches(folder, "failed")
    assert done.reason == "ZeroDivisionError: [redacted] token"
    assert (
        "has no pad"
        not in folder.log_path.read_text() + folder.error_path.read_text() + folder.status_path.read_text()
    )


def test_a_stopped_run_goes_on_in_the_same_folder(yard: Yard) -> None:
    folder = yard.start(steps=40, step_seconds=0.05)
    yard.goes_on(folder)
    stopped = launch.stop(folder)
    again = launch.resume(folder, worker=yard.worker)
    assert not again.over and again.step == stopped.step
    done = yard.reaches(folder, "finished")
    assert done.step == 40 and stopped.seconds is not None and done.seconds is not None
    assert done.seconds > stopped.seconds + 0.05 * (40 - stopped.step)


def test_two_resumes_at_once_start_one_worker(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.1)
    yard.goes_on(folder)
    worker_of(folder).kill()
    yard.reaches(folder, "crashed")
    threads = [threading.Thread(target=launch.resume, args=(folder, yard.worker)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yard.goes_on(folder)
    assert len(workers(folder)) == 1


def test_a_second_worker_on_the_same_folder_leaves_without_a_trace(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.1)
    yard.goes_on(folder)
    before = folder.status()["token"]
    second = subprocess.run(
        [*yard.worker, str(folder.path), "--token", "other"], capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 3 and "already has a worker" in second.stderr
    yard.goes_on(folder)
    assert folder.status()["token"] == before


def test_leftover_commands_do_not_reach_the_next_worker(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.1, hang_at=2)
    wait_until((folder.path / "hanging").exists)
    launch.send(folder, "stop")
    worker_of(folder).kill()
    yard.reaches(folder, "crashed")
    (folder.path / "fake.json").write_text('{"step_seconds": 0.02}')
    launch.resume(folder, worker=yard.worker)
    yard.goes_on(folder)


def test_children_that_a_killed_worker_left_are_swept(yard: Yard) -> None:
    folder = yard.start(children=1, escaped=True)
    yard.goes_on(folder)
    child = int((folder.path / "child-0.pid").read_text())
    worker_of(folder).kill()
    yard.reaches(folder, "crashed")
    wait_until(lambda: not psutil.pid_exists(child), what="the launcher sweeps what its child left")


def test_a_key_starts_one_run_however_often_it_comes_and_another_key_another(yard: Yard) -> None:
    folders: list[RunFolder] = []
    threads = [threading.Thread(target=lambda: folders.append(yard.start(key="form-1"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1 and len(launch.runs(yard.root)) == 1
    assert yard.start(key="form-2") not in folders
    assert yard.start() not in folders


def test_a_runs_root_below_a_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Runs cannot be kept in"):
        Yard(tmp_path / "file" / "runs").start()


def test_a_worker_that_cannot_even_start_is_a_crash_with_its_log(yard: Yard) -> None:
    yard.worker = (sys.executable, "-P", "-c", "raise SystemExit('no such module')")
    folder = yard.start()
    done = yard.reaches(folder, "crashed")
    assert "never came up" in done.reason and "no such module" in " ".join(done.log)


def test_numeric_libraries_get_all_cores_but_one_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert launch.local.thread_variables(None)["OMP_NUM_THREADS"] == "3"
    assert launch.local.thread_variables(2)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert launch.local.thread_variables(None)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launch.local.thread_variables(None) == {}
    assert launch.local.thread_variables(2)["OMP_NUM_THREADS"] == "2"


def test_a_probe_worker_ends_when_idle(yard: Yard) -> None:
    folder = yard.start(kind="probe", idle=0.3)
    done = yard.reaches(folder, "finished", timeout=60)
    assert done.kind == "probe"
    wait_until(lambda: lease.holder(yard.root / STATE_FOLDER, "cpu") == "")


def workers(folder: RunFolder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder.path) in process.cmdline() and "--token" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found
