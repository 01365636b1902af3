"""Devices go to the oldest living ticket, and come back by themselves when their holder dies."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import wait_until
from workbench.core.errors import RunError
from workbench.launch import lease
from workbench.record.files import STATE_FOLDER

HOLDER = """
import sys, time; from pathlib import Path; from workbench.launch import lease
held = lease.acquire("cpu", Path(sys.argv[1]), sys.argv[2], give_up=lambda: False)
print("held", flush=True); time.sleep(600)
"""


def never() -> bool:
    return False


def hold_elsewhere(root: Path, run: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-P", "-c", HOLDER, str(root), run], stdout=subprocess.PIPE)


def tickets(root: Path) -> list[str]:
    return sorted(path.name for path in (root / STATE_FOLDER).glob("*.ticket"))


def test_a_free_device_is_given_at_once_and_can_be_given_again(tmp_path: Path) -> None:
    first = lease.acquire("cpu", tmp_path, "a", never)
    assert first is not None and first.device == "cpu"
    assert lease.holder(tmp_path / STATE_FOLDER, "cpu") == "a"
    first.release()
    assert lease.holder(tmp_path / STATE_FOLDER, "cpu") == ""
    second = lease.acquire("cpu", tmp_path, "b", never)
    assert second is not None
    second.release()
    assert tickets(tmp_path) == []


def test_waiting_runs_are_served_in_the_order_they_came(tmp_path: Path) -> None:
    first = lease.acquire("cpu", tmp_path, "first", never)
    assert first is not None
    served: list[str] = []

    def wait(name: str) -> None:
        if held := lease.acquire("cpu", tmp_path, name, never):
            served.append(name)
            held.release()

    threads = []
    for number, name in enumerate(["c", "a", "b"]):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        wait_until(lambda wanted=number + 1: len(tickets(tmp_path)) == wanted)  # type: ignore[misc]
    first.release()
    for thread in threads:
        thread.join(10)
    assert served == ["c", "a", "b"]


def test_a_free_device_is_not_for_those_behind_in_the_queue(tmp_path: Path) -> None:
    """Without threads and luck: the device lies free, and still only the oldest living ticket may take it."""
    folder = lease.lease_folder("cpu", tmp_path)
    early = [lease._take_ticket(folder, "cpu", name) for name in ("z-came-first", "a-came-second")]
    seen: list[list[str]] = []

    def look() -> lease.Lease | None:
        return lease.acquire("cpu", tmp_path, "m-came-last", iter([False, True]).__next__, seen.append)

    assert lease.holder(folder, "cpu") == "" and look() is None
    early[0].close()  # the first is served, or has died
    assert look() is None
    early[1].close()
    assert seen == [["z-came-first", "a-came-second"], ["a-came-second"]]
    assert look() is not None
    # Every ticket gets a higher number than all that are there, so age is the order and no clock is asked.
    numbers = [lease._take_ticket(folder, "cpu", "x") for _ in range(11)]
    assert [int(Path(one.name).name.split("-")[1]) for one in numbers] == list(range(1, 12))
    assert lease.waiting(tmp_path, "cpu") == ["x"] * 11


def test_a_waiting_run_knows_who_is_ahead_and_can_give_up(tmp_path: Path) -> None:
    first = lease.acquire("cpu", tmp_path, "first", never)
    seen: list[list[str]] = []
    assert lease.acquire("cpu", tmp_path, "second", lambda: bool(seen), seen.append) is None
    assert seen == [["first"]] and first is not None
    assert tickets(tmp_path) == []


def test_a_killed_holder_frees_the_device_at_once(tmp_path: Path) -> None:
    other = hold_elsewhere(tmp_path, "other")
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    assert lease.acquire("cpu", tmp_path, "me", iter([False, True]).__next__) is None
    other.kill()
    other.wait()
    other.stdout.close()
    held = lease.acquire("cpu", tmp_path, "me", iter([False, True]).__next__)  # one look is enough
    assert held is not None


def test_the_ticket_of_a_killed_waiter_is_passed_over(tmp_path: Path) -> None:
    first = lease.acquire("cpu", tmp_path, "first", never)
    assert first is not None
    waiter = hold_elsewhere(tmp_path, "waiter")
    wait_until(lambda: tickets(tmp_path) == ["cpu-000000001-waiter.ticket"])
    waiter.kill()
    waiter.wait()
    assert waiter.stdout is not None
    waiter.stdout.close()
    assert tickets(tmp_path) == ["cpu-000000001-waiter.ticket"]
    first.release()
    assert lease.acquire("cpu", tmp_path, "me", iter([False, True]).__next__) is not None
    assert tickets(tmp_path) == []


def test_two_accelerators_serve_two_runs_and_the_third_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    held = [lease.acquire("cuda", tmp_path / "runs", name, never) for name in ("a", "b")]
    assert [one.device for one in held if one] == ["cuda:0", "cuda:1"]
    # A run that sees only the machine's device 5 shares its lock, though it calls it cuda:0.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert lease.acquire("cuda", tmp_path / "other-runs", "c", iter([False, True]).__next__) is None
    assert held[1] is not None
    held[1].release()
    assert lease.acquire("cuda", tmp_path / "other-runs", "c", iter([False, True]).__next__) is not None


def test_a_named_device_is_taken_at_its_word_and_auto_is_found_without_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [lease.device_kind(name) for name in ("cpu", "cuda", "mps")] == ["cpu", "cuda", "mps"]
    monkeypatch.setattr(lease.platform, "system", lambda: "Linux")
    monkeypatch.setattr(lease.importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert lease.device_kind("auto") == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert lease.device_kind("auto") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(lease.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert lease.device_kind("auto") == "cpu"


def test_a_lock_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = lease.lease_folder("cuda", tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(lease.os, "getuid", lambda: 4711)
    (tmp_path / "grpo-workbench-4711").mkdir()
    with pytest.raises(RunError, match="belongs to somebody else"):
        lease.lease_folder("cuda", tmp_path)
