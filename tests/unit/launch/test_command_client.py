"""The one client that waits for a command's reply."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import lifecycle, probe_client
from workbench.launch.command_client import SentCommand
from workbench.launch.watch import RunState
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.writer import Writer


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path / "runs", RunConfig.build())


@pytest.fixture
def writer(folder: RunFolder) -> Iterator[Writer]:
    with Writer(folder, folder.config()) as made:
        yield made


def reply(writer: Writer, id: str, ok: bool = True, **more: object) -> None:
    """Record a reply as a worker does."""
    writer.event(
        "command", {"id": id, "command": "probe", "args": {}, "ok": ok, "text": f"about {id}", **more}
    )
    writer.flush()


def state(folder: RunFolder, name: str) -> RunState:
    return RunState(folder.id, folder.path, name, alive=name == "running")


def test_a_reply_is_found_among_others_and_no_event_is_read_twice(
    folder: RunFolder, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    events = Reader.events

    def counted(self: Reader, since: int = 0, kind: str | None = None, limit: int = 1000) -> object:
        found = events(self, since, kind, limit)
        read.extend(event["id"] for event in found)
        return found

    monkeypatch.setattr(Reader, "events", counted)
    sent = SentCommand(folder, "mine")
    assert sent.poll() is None
    reply(writer, "other")
    writer.event("setting_changed", {"beta": {"from": 0.0, "to": 0.1}})
    writer.flush()
    assert sent.poll() is None
    reply(writer, "mine", ok=False)
    found = sent.poll()
    assert found is not None and (found["ok"], found["text"]) == (False, "about mine")
    assert len(read) == len(set(read)) == 2


def test_a_reply_that_is_recorded_as_the_run_ends_is_not_missed(
    folder: RunFolder, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(place: RunFolder) -> RunState:
        reply(writer, "mine")
        return state(place, "finished")

    monkeypatch.setattr(lifecycle, "state", ends)
    update = SentCommand(folder, "mine").wait(timeout=5)
    assert update.state.over and update.reply is not None and update.reply["ok"]


def test_waiting_ends_with_the_run_or_when_time_is_up(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["queued", "running", "crashed"])
    monkeypatch.setattr(lifecycle, "state", lambda place: state(place, next(states)))
    seen = list(SentCommand(folder, "mine").updates(timeout=60, every=0))
    assert [update.state.state for update in seen] == ["queued", "running", "crashed"]
    assert [update.done for update in seen] == [False, False, True] and not seen[-1].late
    monkeypatch.setattr(lifecycle, "state", lambda place: state(place, "running"))
    assert SentCommand(folder, "mine").wait(timeout=0).late
    with pytest.raises(RunError, match="No answer within 0 s"):
        probe_client.SentProbe(folder, "mine").result(timeout=0)


def test_a_refused_probe_raises_with_the_workers_reason(folder: RunFolder, writer: Writer) -> None:
    reply(writer, "mine", ok=False)
    with pytest.raises(RunError, match="about mine"):
        probe_client.SentProbe(folder, "mine").result(timeout=5)
    reply(writer, "next", result={"samples": []})
    assert probe_client.SentProbe(folder, "next").result(timeout=5) == {"samples": []}
