"""The training loop's side of the run folder's inbox: commands come in, replies go out as events.

In: command files that clients drop into the inbox. Out: an event for every command, and the state in status.json that
pausing and stopping lead to. Nothing here imports torch.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from workbench.core.errors import RunError
from workbench.record.folder import Command, RunFolder
from workbench.record.status import HEARTBEAT_SECONDS, POLL_SECONDS, Status, StatusReporter


class EventSink(Protocol):
    """Where events go: `Writer.event`."""

    def __call__(self, kind: str, data: dict[str, Any], step: int | None = None) -> object: ...


class Control(StatusReporter):
    """What the loop knows of the world outside its process.

    Use from the loop's own thread:

        for command in control.poll(step):                # at every step boundary; waits here while paused
            control.reply(command, *apply(command))
        if control.stop_requested: ...                    # also between generated tokens
        control.phase("sample", done, total)
        control.progress(step + 1, steps)                 # after every step
    """

    def __init__(self, folder: RunFolder, status: Status, *, beat: float = HEARTBEAT_SECONDS) -> None:
        super().__init__(folder, status, beat=beat)
        self.on_overdue: Callable[[], None] | None = None
        """Called from the heartbeat thread when a stop was not carried out within its grace period."""
        self.lease: object = None
        """The device, held as long as this object."""
        self.warm_start = False
        """Resume although state that exactness needs is missing or was changed."""
        self._inbox: deque[Command] = deque()
        self._reading = threading.Lock()
        self._pauses: list[Command] = []
        """Pause commands that have not taken effect yet."""
        self._paused = False
        self._stop_reason = ""
        self._deadline: float | None = None
        self._sink: EventSink | None = None
        self._unsent: list[tuple[str, dict[str, Any], int]] = []

    def __enter__(self) -> "Control":
        super().__enter__()
        return self

    # -- at step boundaries --------------------------------------------------------------------------------

    def poll(self, step: int | None = None) -> Iterator[Command]:
        """Commands to apply at this boundary, oldest first. While the run is paused this waits here and yields those that
        come in meanwhile. Pause, resume and stop are handled here; the caller sends a `reply` to every other one."""
        if step is not None:
            self.status.step = step
        entered = time.monotonic()
        while True:
            self._read_inbox()
            while self._inbox:
                command = self._inbox.popleft()
                if not self._handle(command):
                    yield command
            if self._stop_reason:
                self._reply_to_pauses(False, "the run stops")
            elif 0 < self.status.steps <= self.status.step:
                self._reply_to_pauses(False, "that was the last step: the run ends")
            elif self._pauses:
                self._paused = True
                self._set_state("paused")
                self._reply_to_pauses(True, f"paused before step {self.status.step}")
            if not self._paused or self._stop_reason:
                break
            time.sleep(POLL_SECONDS)
        if self.status.state == "paused" or self._paused:
            self._paused = False
            self._boundary += time.monotonic() - entered  # a pause is no part of a step's duration
            self._set_state("stopping" if self._stop_reason else "running")

    def hold(self, reason: str, until: Callable[[], bool]) -> bool:
        """Wait here, paused for `reason`, until `until()` is true, a stop, or a `resume` command; True for the last.

        Other commands wait for the next `poll`."""
        self._set_state("paused")
        self.status.reason = reason
        self.event("paused", {"text": reason})
        entered, resumed = time.monotonic(), False
        while not self._stop_reason and not resumed and not until():
            self._read_inbox()
            for command in [one for one in self._inbox if one.command == "resume"]:
                self._inbox.remove(command)
                self.reply(command, True, "goes on as it is")
                resumed = True
            time.sleep(POLL_SECONDS)
        self._boundary += time.monotonic() - entered
        self._set_state("stopping" if self._stop_reason else "paused" if self._paused else "running")
        return resumed

    def reply(self, command: Command, ok: bool, text: str, result: Mapping[str, Any] | None = None) -> None:
        """Record what became of a command: `text` is for people, `result` for programs."""
        data: dict[str, Any] = {
            "id": command.id,
            "command": command.command,
            "args": command.args,
            "ok": ok,
            "text": text,
        }
        self.event("command", data if result is None else {**data, "result": dict(result)})

    def close_inbox(self) -> None:
        """Reply to the commands that came too late for any boundary: the run is about to end."""
        self._read_inbox()
        while self._inbox:
            command = self._inbox.popleft()
            if command.command == "stop":
                self.reply(command, True, "the run ends")
            else:
                self.reply(command, False, "the run ended before its next step")

    # -- stopping ------------------------------------------------------------------------------------------

    @property
    def stop_requested(self) -> bool:
        """Whether to end at the next step boundary, with a checkpoint. Cheap enough to be read after every token."""
        return bool(self._stop_reason)

    @property
    def stop_reason(self) -> str:
        """Why the run stops, '' where no stop was requested."""
        return self._stop_reason

    def request_stop(self, why: str, grace: float | None = None) -> None:
        """End at the next boundary. With `grace`: seconds after which `on_overdue` is called."""
        self._stop_reason = self._stop_reason or why
        if grace is not None and self._deadline is None:
            self._deadline = time.monotonic() + grace
        if self.status.state in ("running", "paused", "queued", "starting"):
            self._set_state("stopping")

    # -- events --------------------------------------------------------------------------------------------

    def record_to(self, sink: EventSink) -> None:
        """Send events to `sink` from now on, those kept so far first."""
        self._sink = sink
        for kind, data, step in self._unsent:
            sink(kind, data, step=step)
        self._unsent.clear()

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Record an event of the run's history; kept until there is somewhere to record it."""
        if self._sink is None:
            self._unsent.append((kind, data, self.status.step))
        else:
            # The writer keeps what it cannot write and raises at its next step.
            with contextlib.suppress(RunError):
                self._sink(kind, data, step=self.status.step)

    def running(self) -> None:
        """The device is held and the loop begins."""
        self._boundary = time.monotonic()
        self._set_state("stopping" if self._stop_reason else "running")

    # -- inside --------------------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        """Empty the inbox folder. A stop takes effect here, whichever thread reads it: the loop may be deep in a step, or
        hang."""
        with self._reading, contextlib.suppress(OSError):
            for command in self.folder.take():
                self._inbox.append(command)
                if command.command == "stop":
                    grace = command.args.get("grace")
                    self.request_stop(
                        "stop was asked for", float(grace) if isinstance(grace, int | float) else None
                    )

    def _handle(self, command: Command) -> bool:
        """Carry out the commands that concern the process and not the training; False for all others."""
        if command.command == "stop":
            self.reply(command, True, "stops after this step, with a checkpoint")
        elif command.command == "pause":
            self._pauses.append(command)
        elif command.command == "resume":
            was_paused = self._paused or bool(self._pauses)
            self._reply_to_pauses(False, "resumed before it took effect")
            self.reply(command, was_paused, "goes on" if was_paused else "was not paused")
            self._paused = False
        elif command.command == "unreadable":
            self.reply(command, False, f"not a command: {command.args.get('reason', '')}")
        else:
            return False
        return True

    def _reply_to_pauses(self, ok: bool, text: str) -> None:
        while self._pauses:
            self.reply(self._pauses.pop(0), ok, text)

    def _tick(self) -> None:
        self._read_inbox()
        if self._deadline is not None and time.monotonic() > self._deadline and self.on_overdue:
            self._deadline = None
            self.on_overdue()
