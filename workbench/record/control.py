"""What the loop knows of the process around it: commands come in, phases and progress go out.

In: command files that anybody drops into the run folder's inbox. Out: status.json, replaced about once a
second by a thread, and an event for every command answered. Nothing here imports torch.
"""

import contextlib
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from workbench.core.errors import RunError
from workbench.record.files import rotate
from workbench.record.folder import Command, RunFolder
from workbench.record.status import State, Status

BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.1
"""How often the inbox is looked at."""
ETA_WINDOW = 20


class EventSink(Protocol):
    """Where answers go: `Writer.event`."""

    def __call__(self, kind: str, data: dict[str, Any], step: int | None = None) -> object: ...


class Control:
    """The loop's side of the inbox and of status.json.

    Use from the loop's own thread:

        for command in control.poll(step):                # at every step boundary; waits here while paused
            control.reply(command, *apply(command))
        if control.stop_requested: ...                    # also between generated tokens
        control.phase("sample", done, total)
        control.progress(step + 1, steps)                 # after every step
    """

    def __init__(self, folder: RunFolder, status: Status, *, beat: float = BEAT_SECONDS) -> None:
        self.folder = folder
        self.status = status
        self.on_overdue: Callable[[], None] | None = None
        """Called from the heartbeat thread when a stop has not come through within its grace."""
        self.lease: object = None
        """The device, held as long as this object."""
        self.warm_start = False
        """Go on although pieces of the run are missing or were changed."""
        self._beat = beat
        self._inbox: deque[Command] = deque()
        self._taking = threading.Lock()
        self._pausing: list[Command] = []
        """Wishes to pause that have not taken effect yet."""
        self._paused = False
        self._stopping = ""
        self._deadline: float | None = None
        self._durations: deque[float] = deque(maxlen=ETA_WINDOW)
        self._boundary = time.monotonic()
        self._sink: EventSink | None = None
        self._unsent: list[tuple[str, dict[str, Any], int]] = []
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._heart, name="heartbeat", daemon=True)

    def __enter__(self) -> "Control":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        self._dirty.set()
        self._thread.join(timeout=5)

    # -- what the loop asks --------------------------------------------------------------------------------

    def poll(self, step: int | None = None) -> Iterator[Command]:
        """Commands to apply at this boundary, oldest first. While the run is paused it stays here and yields
        those that come in meanwhile. Pause, resume and stop are dealt with; answer all others with `answer`.
        """
        if step is not None:
            self.status.step = step
        entered = time.monotonic()
        while True:
            self._look()
            while self._inbox:
                command = self._inbox.popleft()
                if not self._deal_with(command):
                    yield command
            if self._stopping:
                self._answer_pauses(False, "the run stops")
            elif 0 < self.status.steps <= self.status.step:
                self._answer_pauses(False, "that was the last step: the run ends")
            elif self._pausing:
                self._paused = True
                self._set_state("paused")
                self._answer_pauses(True, f"paused before step {self.status.step}")
            if not self._paused or self._stopping:
                break
            time.sleep(LOOK_SECONDS)
        if self.status.state == "paused" or self._paused:
            self._paused = False
            self._boundary += time.monotonic() - entered  # a pause is no part of a step's duration
            self._set_state("stopping" if self._stopping else "running")

    def hold(self, reason: str, until: Callable[[], bool]) -> bool:
        """Wait here, paused for `reason`, until it is gone, a stop, or somebody's `resume`; True for the last.

        Other commands wait for the next `poll`."""
        self._set_state("paused")
        self.status.reason = reason
        self.event("paused", {"text": reason})
        entered, wanted = time.monotonic(), False
        while not self._stopping and not wanted and not until():
            self._look()
            for command in [one for one in self._inbox if one.command == "resume"]:
                self._inbox.remove(command)
                self.reply(command, True, "goes on as it is")
                wanted = True
            time.sleep(LOOK_SECONDS)
        self._boundary += time.monotonic() - entered
        self._set_state("stopping" if self._stopping else "paused" if self._paused else "running")
        return wanted

    @property
    def stop_requested(self) -> bool:
        """Whether to end at the next step boundary, with a checkpoint. Costs nothing to ask, even after every
        token."""
        return bool(self._stopping)

    def reply(self, command: Command, ok: bool, text: str, result: Mapping[str, Any] | None = None) -> None:
        """Say in the events what became of a command: `text` is for people, `result` for programs."""
        data: dict[str, Any] = {
            "id": command.id,
            "command": command.command,
            "args": command.args,
            "ok": ok,
            "text": text,
        }
        self.event("command", data if result is None else {**data, "result": dict(result)})

    # -- what the loop tells -------------------------------------------------------------------------------

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """What is going on now and how far it is: evaluate, sample, score, update, record, checkpoint, ..."""
        status = self.status
        changed = name != status.phase or total != status.phase_total
        status.phase, status.phase_done, status.phase_total, status.progress_at = (
            name,
            done,
            total,
            time.time(),
        )
        if changed:
            self._dirty.set()

    def until(self, when: float | None) -> None:
        """The phase waits, and goes on by itself at that time (unix seconds); None where it does not."""
        self.status.until = when
        self._dirty.set()

    def progress(self, step: int, steps: int) -> None:
        """`step` of `steps` are finished; called at each step boundary."""
        now = time.monotonic()
        if step > self.status.step:
            self._durations.append((now - self._boundary) / (step - self.status.step))
        self._boundary = now
        self.status.step, self.status.steps, self.status.progress_at = step, steps, time.time()
        if self._durations:
            # The mean, because a held-out check every few steps belongs to the time that is left; the median
            # for "stalled".
            self.status.eta = statistics.mean(self._durations) * max(0, steps - step)
            self.status.step_seconds = statistics.median(self._durations)
        self._dirty.set()

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Record an event of the run's history; kept until there is somewhere to record it."""
        if self._sink is None:
            self._unsent.append((kind, data, self.status.step))
        else:
            with contextlib.suppress(
                RunError
            ):  # a record that cannot be written says so at its next step, and keeps this
                self._sink(kind, data, step=self.status.step)

    # -- what the worker does with it ----------------------------------------------------------------------

    def record_to(self, sink: EventSink) -> None:
        """From now on events go there, those kept so far first."""
        self._sink = sink
        for kind, data, step in self._unsent:
            sink(kind, data, step=step)
        self._unsent.clear()

    def close_inbox(self) -> None:
        """Answer what came too late for any boundary: the run is about to end."""
        self._look()
        while self._inbox:
            command = self._inbox.popleft()
            if command.command == "stop":
                self.reply(command, True, "the run ends")
            else:
                self.reply(command, False, "the run ended before its next step")

    def running(self) -> None:
        """The device is ours and the loop begins."""
        self._boundary = time.monotonic()
        self._set_state("stopping" if self._stopping else "running")

    def queued(self, ahead: list[str]) -> None:
        """The run waits for a device behind these runs."""
        reason = f"waits for {', '.join(ahead)}" if ahead else "waits for the device"
        if (self.status.state, self.status.reason) != ("queued", reason):
            self.status.state, self.status.reason = "queued", reason
            self._dirty.set()

    def request_stop(self, why: str, grace: float | None = None) -> None:
        """End at the next boundary. With `grace`: seconds after which `overdue` is called."""
        self._stopping = self._stopping or why
        if grace is not None and self._deadline is None:
            self._deadline = time.monotonic() + grace
        if self.status.state in ("running", "paused", "queued", "starting"):
            self._set_state("stopping")

    @property
    def stop_reason(self) -> str:
        """Who asked for the stop, '' where nobody did."""
        return self._stopping

    def end(self, state: State, reason: str = "") -> None:
        """The last word. Retried for a while where the disk is full: without it the run would look
        crashed."""
        with self._lock:
            self._closed = True
            self.status.state, self.status.reason, self.status.eta = state, reason, None
            self.status.heartbeat = self.status.ended = time.time()
            for attempt in range(5):
                try:
                    self.folder.write_status(asdict(self.status))
                    break
                except OSError as error:
                    print(
                        f"The end of the run ({state}) could not be recorded: {error}",
                        file=sys.stderr,
                        flush=True,
                    )
                    time.sleep(0.2 * 2**attempt)
        self._dirty.set()

    # -- inside --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Empty the inbox folder. A stop takes effect here, whichever thread looks: the loop may be deep in a
        step, or hang."""
        with self._taking, contextlib.suppress(OSError):
            for command in self.folder.take():
                self._inbox.append(command)
                if command.command == "stop":
                    grace = command.args.get("grace")
                    self.request_stop(
                        "stop was asked for", float(grace) if isinstance(grace, int | float) else None
                    )

    def _deal_with(self, command: Command) -> bool:
        """Whether this command is none of the loop's business."""
        if command.command == "stop":
            self.reply(command, True, "stops after this step, with a checkpoint")
        elif command.command == "pause":
            self._pausing.append(command)
        elif command.command == "resume":
            was_wanted = self._paused or bool(self._pausing)
            self._answer_pauses(False, "resumed before it took effect")
            self.reply(command, was_wanted, "goes on" if was_wanted else "was not paused")
            self._paused = False
        elif command.command == "unreadable":
            self.reply(command, False, f"not a command: {command.args.get('reason', '')}")
        else:
            return False
        return True

    def _answer_pauses(self, ok: bool, text: str) -> None:
        while self._pausing:
            self.reply(self._pausing.pop(0), ok, text)

    def _set_state(self, state: State) -> None:
        self.status.state, self.status.progress_at = state, time.time()
        if state in ("running", "paused"):
            self.status.reason = ""
        self._dirty.set()

    def _heart(self) -> None:
        written = 0.0
        while not self._closed:
            self._look()
            now = time.monotonic()
            if self._dirty.is_set() or now - written >= self._beat:
                self._dirty.clear()
                self._write()
                rotate(self.folder.log_path)
                written = now
            if self._deadline is not None and now > self._deadline and self.on_overdue:
                self._deadline = None
                self.on_overdue()
            time.sleep(LOOK_SECONDS)

    def _write(self) -> None:
        with (
            self._lock,
            contextlib.suppress(OSError),
        ):  # a full disk must not stop the run; the next beat tries again
            if not self._closed:
                self.status.heartbeat = time.time()
                self.folder.write_status(asdict(self.status))
