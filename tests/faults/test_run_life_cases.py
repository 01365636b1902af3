"""What may happen to a run while it lives: each case with a real worker process, none with torch."""

import os
import signal
import subprocess
import sys
import time

import psutil

from tests.helpers import FAKE_WORKER, Yard, wait_until
from workbench import launch
from workbench.launch import lease, watch
from workbench.record.files import STATE_FOLDER
from workbench.record.folder import RunFolder

APP = """
import sys, time; from workbench import launch; from workbench.core.config import RunConfig
config = RunConfig.build(None, {"steps": 20_000, "device": "cpu"})
folder = launch.start(config, sys.argv[1], worker=tuple(sys.argv[2:]))
print(folder.id, flush=True); time.sleep(600)
"""


def app(yard: Yard) -> tuple["subprocess.Popen[str]", RunFolder]:
    """Another app on the same runs folder, which has started one run."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", APP, str(yard.root), *FAKE_WORKER],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    folder = RunFolder(yard.root / process.stdout.readline().strip())
    process.stdout.close()
    yard.started.append(folder)
    return process, folder


def worker_pid(folder: RunFolder) -> int:
    return wait_until(lambda: watch.identity_of(folder.status()), what="the worker's identity").pid  # type: ignore[union-attr]


def test_case_22_a_killed_app_leaves_its_run_going_and_a_new_app_finds_it(yard: Yard) -> None:
    process, folder = app(yard)
    yard.goes_on(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    yard.goes_on(folder)
    began = time.monotonic()
    [found] = launch.runs(yard.root)
    assert time.monotonic() - began < 5
    assert found.state == "running" and found.alive
    assert psutil.Process(found_pid := worker_pid(folder)).ppid() != process.pid and found_pid > 1


def test_case_24_a_killed_worker_is_crashed_with_reason_and_log_and_its_device_is_free(yard: Yard) -> None:
    folder = yard.start(children=2)
    yard.goes_on(folder)
    folder.log_path.open("a").write("loading the model\n")
    waiting = yard.start()
    yard.reaches(waiting, "queued")
    began = time.monotonic()
    os.kill(worker_pid(folder), signal.SIGKILL)
    dead = yard.reaches(folder, "crashed", timeout=10)
    assert time.monotonic() - began < 10
    yard.reaches(waiting, "running")
    assert "process is gone" in dead.reason
    assert "loading the model" in dead.log
    # The process that started it also notes how it ended.
    wait_until(lambda: "signal 9 (SIGKILL)" in launch.state(folder).reason)


def test_case_25_after_a_restart_of_the_machine_the_run_is_interrupted_and_can_go_on(yard: Yard) -> None:
    folder = yard.start(step_seconds=0.05)
    yard.goes_on(folder)
    os.kill(worker_pid(folder), signal.SIGKILL)
    yard.reaches(folder, "crashed")
    folder.write_status({**folder.status(), "boot_id": "of-yesterday"})
    found = launch.state(folder)
    assert found.state == "interrupted" and "restarted" in found.reason
    launch.resume(folder, worker=FAKE_WORKER)
    yard.goes_on(folder)


def test_case_26_a_process_that_got_the_pid_is_never_signalled(yard: Yard) -> None:
    folder = yard.start()
    yard.goes_on(folder)
    os.kill(worker_pid(folder), signal.SIGKILL)
    yard.reaches(folder, "crashed")
    status = folder.status()
    # A stranger under the old pid, with even the token on its command line: only the start time
    # distinguishes it.
    stranger = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)", status["token"]], start_new_session=True
    )
    other = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    try:
        wait_until(lambda: status["token"] in psutil.Process(stranger.pid).cmdline())
        folder.write_status({**status, "pid": stranger.pid, "create_time": status["create_time"] - 1000})
        assert launch.state(folder).state == "crashed"
        assert launch.stop(folder, grace=0, kill_after=0).state == "crashed"
        # and one with the right start time but without the token
        started = psutil.Process(other.pid).create_time() - psutil.boot_time()
        folder.write_status({**status, "pid": other.pid, "create_time": started})
        assert launch.state(folder).state == "crashed"
        launch.stop(folder, grace=0, kill_after=0)
        for process in (stranger, other):
            assert process.poll() is None and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    finally:
        for process in (stranger, other):
            process.kill()
            process.wait()


def test_case_27_a_stop_ends_at_a_boundary_and_past_its_grace_by_force_with_all_children(yard: Yard) -> None:
    gentle = yard.start(step_seconds=0.3)
    yard.goes_on(gentle)
    done = launch.stop(gentle)
    assert done.state == "stopped" and done.step >= 2
    hung = yard.start(hang_at=1, children=2)
    wait_until((hung.path / "hanging").exists)
    done = launch.stop(hung, grace=0.5, kill_after=5)
    assert done.state == "stopped" and "inside a step" in done.reason  # SIGTERM was enough
    deaf = yard.start(hang_at=1, deaf=True, children=2, escaped=True)
    wait_until((deaf.path / "hanging").exists)
    frozen = psutil.Process(worker_pid(deaf))
    frozen.suspend()  # not even its own watchdog runs
    done = launch.stop(deaf, grace=0.3, kill_after=0.5)
    assert done.state == "stopped" and "by force" in done.reason
    for folder in (hung, deaf):
        for path in folder.path.glob("child-*.pid"):
            child = int(path.read_text())
            wait_until(lambda pid=child: not _runs(pid), what="the child is gone")  # type: ignore[misc]


def test_case_27b_a_worker_holds_itself_to_the_grace_when_no_other_process_does(yard: Yard) -> None:
    folder = yard.start(hang_at=1, deaf=True, children=1, escaped=True)
    wait_until((folder.path / "hanging").exists)
    folder.put("stop", {"grace": 0.3})  # whoever asked has gone away
    assert "did not come to an end" in yard.reaches(folder, "stopped").reason
    child = int((folder.path / "child-0.pid").read_text())
    wait_until(lambda: not launch.state(folder).alive and not _runs(child))


def test_case_28_a_finished_run_whose_process_hangs_on_the_way_out_is_finished_and_goes(yard: Yard) -> None:
    folder = yard.start(steps=2, teardown_hang=True, teardown=1.0)
    done = yard.reaches(folder, "finished")
    assert done.alive
    wait_until(lambda: not launch.state(folder).alive, what="it leaves by itself")
    assert launch.state(folder).state == "finished"
    assert "leaving by force" in folder.log_path.read_text()
    slow = yard.start(steps=2, teardown_hang=True, teardown=600.0)
    yard.reaches(slow, "finished")
    assert launch.stop(slow).state == "finished"  # a person need not wait for that
    wait_until(lambda: not launch.state(slow).alive)


def test_case_29_two_clicks_are_one_run_and_two_apps_take_turns(yard: Yard) -> None:
    first = yard.start(key="one form", step_seconds=0.05)
    assert yard.start(key="one form") == first
    yard.goes_on(first)
    process, second = app(yard)
    waiting = yard.reaches(second, "queued")
    assert first.id in waiting.reason
    assert {run.id for run in launch.runs(yard.root)} == {first.id, second.id}
    launch.stop(first)
    yard.goes_on(second)
    process.kill()
    process.wait()


def test_case_30_runs_take_turns_on_one_device_and_a_queued_one_can_be_cancelled(yard: Yard) -> None:
    first = yard.start(step_seconds=0.02)
    yard.goes_on(first)
    second, third = yard.start(steps=2), None
    yard.reaches(second, "queued")
    third = yard.start(steps=2)
    waiting = yard.reaches(third, "queued")
    wait_until(lambda: launch.state(third).reason == f"waits for {first.id}, {second.id}")
    assert psutil.Process(worker_pid(third)).memory_info().rss < 150 * 2**20  # a waiting run holds no torch
    cancelled = launch.stop(second)
    assert cancelled.state == "stopped" and cancelled.step == 0
    wait_until(lambda: launch.state(third).reason == f"waits for {first.id}")
    assert waiting.alive
    launch.stop(first)
    yard.reaches(third, "finished")
    wait_until(lambda: lease.holder(yard.root / STATE_FOLDER, "cpu") == "")


def test_case_30_runs_are_served_in_the_order_they_came_whatever_their_names(yard: Yard) -> None:
    first = yard.start(step_seconds=0.02)
    yard.goes_on(first)
    waiting = []
    for _ in range(3):
        waiting.append(yard.start(steps=2, step_seconds=0.3))
        ids = ", ".join(run.id for run in [first, *waiting[:-1]])
        wait_until(lambda ids=ids: launch.state(waiting[-1]).reason == f"waits for {ids}")  # type: ignore[misc]
    launch.stop(first)
    for number, run in enumerate(waiting):
        yard.reaches(run, "running")
        behind = [launch.state(later) for later in waiting[number + 1 :]]
        assert [one.state for one in behind] == ["queued"] * len(behind)
    yard.reaches(waiting[-1], "finished")
    ends = [launch.state(run).ended for run in waiting]
    assert ends == sorted(ends, key=lambda end: end or 0.0) and None not in ends


def test_case_30b_a_queued_run_outlives_the_app_that_queued_it(yard: Yard) -> None:
    first = yard.start(step_seconds=0.02)
    yard.goes_on(first)
    process, second = app(yard)
    yard.reaches(second, "queued")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    launch.stop(first)
    yard.goes_on(second)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
