"""Commands of the inbox at step boundaries, and status.json."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import wait_until
from workbench.core.config import RunConfig
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.status import Status


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path / "runs", RunConfig.build())


@pytest.fixture
def control(folder: RunFolder) -> Iterator[Control]:
    with Control(folder, Status(steps=10), beat=0.05) as made:
        yield made


class Sink:
    """Collects events as (kind, data, step)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any], int | None]] = []

    def __call__(self, kind: str, data: dict[str, Any], step: int | None = None) -> None:
        self.events.append((kind, data, step))

    def replies(self) -> list[tuple[str, bool, str]]:
        """Each command, whether it was carried out, and the text."""
        return [(data["command"], data["ok"], data["text"]) for _, data, _ in self.events]


def test_commands_come_in_order_and_are_replied_to_in_the_events(folder: RunFolder, control: Control) -> None:
    sink = Sink()
    control.record_to(sink)
    first = folder.put("set", {"beta": 0.02})
    folder.put("checkpoint")
    for command in control.poll(4):
        control.reply(command, command.command == "set", f"{command.command} done")
    assert [(kind, data["command"], data["args"], data["ok"], step) for kind, data, step in sink.events] == [
        ("command", "set", {"beta": 0.02}, True, 4),
        ("command", "checkpoint", {}, False, 4),
    ]
    assert sink.events[0][1]["id"] == first
    assert list(control.poll(5)) == []


def test_a_stop_is_seen_between_tokens_and_replied_to(folder: RunFolder, control: Control) -> None:
    assert not control.stop_requested
    folder.put("stop")
    wait_until(lambda: control.stop_requested, 5)
    assert list(control.poll(3)) == []  # not the loop's business beyond that
    sink = Sink()
    control.record_to(sink)  # events from before there was a record are kept
    assert [data["ok"] for _, data, _ in sink.events] == [True]
    assert wait_until(lambda: folder.status()["state"] == "stopping")


def test_a_paused_run_waits_at_the_boundary_with_its_heart_beating_and_takes_settings(
    folder: RunFolder, control: Control
) -> None:
    control.running()
    folder.put("pause")
    taken: list[str] = []
    loop = threading.Thread(target=lambda: taken.extend(command.command for command in control.poll(3)))
    loop.start()
    wait_until(lambda: folder.status()["state"] == "paused")
    before = folder.status()["heartbeat"]
    folder.put("set", {"beta": 0.1})
    wait_until(lambda: taken == ["set"], what="a setting taken while paused")
    wait_until(lambda: folder.status()["heartbeat"] > before)
    assert loop.is_alive()
    folder.put("resume")
    loop.join(5)
    assert not loop.is_alive()
    wait_until(lambda: folder.status()["state"] == "running")


def test_a_stop_ends_a_pause(folder: RunFolder, control: Control) -> None:
    folder.put("pause")
    loop = threading.Thread(target=lambda: list(control.poll(3)))
    loop.start()
    wait_until(lambda: folder.status()["state"] == "paused")
    folder.put("stop")
    loop.join(5)
    assert not loop.is_alive() and control.stop_requested


def test_pause_and_resume_before_the_boundary_cancel_each_other(folder: RunFolder, control: Control) -> None:
    sink = Sink()
    control.record_to(sink)
    folder.put("pause")
    folder.put("resume")
    assert list(control.poll(1)) == []
    assert sink.replies() == [("pause", False, "resumed before it took effect"), ("resume", True, "goes on")]
    folder.put("resume")
    assert list(control.poll(2)) == []
    assert sink.replies()[2:] == [("resume", False, "was not paused")]


def test_every_pause_command_gets_a_reply_however_many_there_are(folder: RunFolder, control: Control) -> None:
    sink = Sink()
    control.record_to(sink)
    control.running()
    folder.put("pause")
    folder.put("pause")
    loop = threading.Thread(target=lambda: list(control.poll(3)))
    loop.start()
    wait_until(lambda: len(sink.events) == 2)
    folder.put("pause")
    wait_until(lambda: len(sink.events) == 3)
    folder.put("resume")
    loop.join(5)
    assert not loop.is_alive()
    assert sink.replies() == [("pause", True, "paused before step 3")] * 3 + [("resume", True, "goes on")]
    assert list(control.poll(4)) == []  # and none of them is left over


def test_a_pause_behind_a_stop_is_refused_because_the_run_stops(folder: RunFolder, control: Control) -> None:
    sink = Sink()
    control.record_to(sink)
    folder.put("stop")
    folder.put("pause")
    assert list(control.poll(3)) == []
    assert sink.replies()[1:] == [("pause", False, "the run stops")]


def test_what_comes_too_late_for_any_boundary_gets_a_reply_too(folder: RunFolder, control: Control) -> None:
    sink = Sink()
    control.record_to(sink)
    folder.put("set", {"beta": 0.02})
    folder.put("stop")
    control.close_inbox()
    assert sink.replies() == [
        ("set", False, "the run ended before its next step"),
        ("stop", True, "the run ends"),
    ]


def test_a_file_that_is_no_command_gets_a_reply_and_nothing_else_happens(
    folder: RunFolder, control: Control
) -> None:
    (folder.control / "1-torn.json").write_text('{"id": "x", "comm')
    sink = Sink()
    control.record_to(sink)
    assert list(control.poll(0)) == []
    assert sink.events[0][1]["ok"] is False and "not a command" in sink.events[0][1]["text"]


def test_phase_progress_and_pace_reach_the_status_file(folder: RunFolder, control: Control) -> None:
    control.running()
    control.phase("sample", 3, 16)
    wait_until(
        lambda: (
            (folder.status()["phase"], folder.status()["phase_done"], folder.status()["phase_total"])
            == ("sample", 3, 16)
        )
    )
    control.progress(1, 10)
    control.progress(2, 10)
    status = wait_until(lambda: (found := folder.status())["step"] == 2 and found)
    assert status["steps"] == 10
    assert status["eta"] == pytest.approx(8 * status["step_seconds"], rel=0.9)
    assert status["progress_at"] <= status["heartbeat"]


def test_time_in_a_pause_does_not_count_as_pace(
    folder: RunFolder, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("workbench.record.control.time.monotonic", lambda: now[0])
    control.running()
    now[0] += 2
    control.progress(1, 10)
    folder.put("pause")

    def long_pause(seconds: float) -> None:
        now[0] += 1000
        folder.put("resume")

    monkeypatch.setattr("workbench.record.control.time.sleep", long_pause)
    assert list(control.poll(1)) == []
    now[0] += 4
    control.progress(2, 10)
    assert control.status.step_seconds == 3.0
    assert control.status.eta == 24.0


def test_the_final_status_is_not_overwritten(folder: RunFolder, control: Control) -> None:
    control.running()
    control.end("failed", "it broke")
    control.phase("sample", 1, 2)
    before = folder.status_path.read_bytes()
    threading.Event().wait(0.3)  # several heartbeats
    assert folder.status_path.read_bytes() == before
    assert folder.status()["state"] == "failed" and folder.status()["reason"] == "it broke"


def test_a_stop_that_does_not_come_through_in_its_grace_is_reported_to_the_worker(
    folder: RunFolder, control: Control
) -> None:
    late = threading.Event()
    control.on_overdue = late.set
    folder.put("stop", {"grace": 0.1})
    assert wait_until(lambda: control.stop_requested)
    assert late.wait(5)


def test_a_disk_that_refuses_a_heartbeat_does_not_stop_the_loop(folder: RunFolder, control: Control) -> None:
    real, folder.write_status = folder.write_status, _full  # type: ignore[method-assign]
    control.phase("sample")
    threading.Event().wait(0.2)
    folder.write_status = real  # type: ignore[method-assign]
    control.phase("score")
    wait_until(lambda: folder.status()["phase"] == "score")


def _full(status: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_pause_after_the_last_step_does_not_hold_the_run_back(folder: RunFolder, control: Control) -> None:
    sink = Sink()
    control.record_to(sink)
    folder.put("pause")
    assert list(control.poll(10)) == []  # of 10 steps; a pause would stay in here
    assert [(data["ok"], data["text"]) for _, data, _ in sink.events] == [
        (False, "that was the last step: the run ends")
    ]
    assert control.status.state != "paused"
