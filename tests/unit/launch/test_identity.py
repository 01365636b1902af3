"""A worker is known by boot id, pid, start time and token together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.helpers import wait_until
from workbench.launch import identity

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", SLEEP, "--token", "tok-1"], start_new_session=True
    )
    yield process
    process.kill()
    process.wait()


def of(process: "subprocess.Popen[bytes]", token: str = "tok-1") -> identity.Identity:
    wait_until(lambda: token in psutil.Process(process.pid).cmdline(), what="exec")
    return identity.Identity(
        process.pid, identity.start_time(psutil.Process(process.pid)), identity.boot_id(), token
    )


def test_a_process_is_found_by_its_whole_identity(sleeper: "subprocess.Popen[bytes]") -> None:
    found = identity.find(of(sleeper))
    assert found is not None and found.pid == sleeper.pid


@pytest.mark.parametrize(
    "change", [{"create_time": 17.0}, {"boot_id": "another"}, {"token": "tok-2"}, {"token": ""}, {"pid": 0}]
)
def test_one_part_that_differs_is_another_process(
    sleeper: "subprocess.Popen[bytes]", change: dict[str, object]
) -> None:
    assert identity.alive(of(sleeper))
    assert not identity.alive(of(sleeper)._replace(**change))  # type: ignore[arg-type]


def test_a_zombie_is_not_alive(sleeper: "subprocess.Popen[bytes]") -> None:
    who = of(sleeper)
    os.kill(sleeper.pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE)
    assert psutil.pid_exists(sleeper.pid)  # what a naive check would see
    assert not identity.alive(who)


def test_start_times_do_not_move_with_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch, sleeper: "subprocess.Popen[bytes]"
) -> None:
    who = of(sleeper)
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600)  # a clock set forward by an hour
    assert identity.alive(who)


def test_a_worker_that_has_not_spoken_is_found_by_its_token(sleeper: "subprocess.Popen[bytes]") -> None:
    of(sleeper)
    found = identity.find_by_token("tok-1")
    assert found is not None and found.pid == sleeper.pid
    assert identity.find_by_token("tok-none") is None
    assert identity.find_by_token("") is None


def test_children_are_found_by_the_session_of_a_living_worker_and_by_their_environment_after_it() -> None:
    script = (
        "import os, subprocess, sys, time; a = [sys.executable, '-S', '-c', 'import time; time.sleep(600)']\n"
        "bare = {k: v for k, v in os.environ.items() if k != 'WORKBENCH_RUN_TOKEN'}\n"
        "one = subprocess.Popen(a, env=bare); two = subprocess.Popen(a, start_new_session=True)\n"
        "print(one.pid, two.pid, flush=True); time.sleep(600)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-S", "-c", script, "tok-9"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        env={**os.environ, identity.TOKEN_VARIABLE: "tok-9"},
    )
    assert worker.stdout is not None
    same_session, own_session = map(int, worker.stdout.readline().split())
    worker.stdout.close()
    who = of(worker, "tok-9")
    try:
        assert {process.pid for process in identity.process_tree(who)} == {same_session, own_session}
        worker.kill()
        worker.wait()
        assert {process.pid for process in identity.process_tree(who)} == {own_session}
    finally:
        identity.kill_process_tree(who)
        psutil.Process(same_session).kill()
    assert not psutil.pid_exists(own_session) or psutil.Process(own_session).status() == psutil.STATUS_ZOMBIE
