"""status.json: state, phase, progress and heartbeat of a run's worker.

In: what the loop reports. Out: the file, replaced whole at every change of state or phase and at least once a second.
"""

import contextlib
import statistics
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Literal

from workbench.record.files import rotate
from workbench.record.folder import RunFolder

State = Literal["queued", "starting", "running", "paused", "stopping", "finished", "stopped", "failed"]
ENDED: frozenset[str] = frozenset({"finished", "stopped", "failed"})
"""The states that a worker ends in by itself."""
HEARTBEAT_SECONDS = 1.0
POLL_SECONDS = 0.1
"""How often the heartbeat thread looks for changes."""
ETA_WINDOW = 20
"""Steps that the remaining time is estimated from."""


@dataclass(slots=True)
class Status:
    """The content of status.json. Times are unix seconds unless noted otherwise."""

    state: State = "starting"
    phase: str = ""
    phase_done: int = 0
    phase_total: int = 0
    step: int = 0
    """Finished steps."""
    steps: int = 0
    pid: int | None = None
    """None until the worker has come up."""
    create_time: float = 0.0
    """Seconds from boot to the start of the worker."""
    boot_id: str = ""
    token: str = ""
    heartbeat: float = 0.0
    """When the process last wrote this file."""
    progress_at: float = 0.0
    """When the loop last moved on: a phase began, counted further, or ended."""
    started: float = 0.0
    """Start of this worker."""
    earlier: float = 0.0
    """Seconds that earlier workers of the same run took."""
    ended: float | None = None
    reason: str = ""
    eta: float | None = None
    """Seconds to the end at the pace of the last steps."""
    step_seconds: float | None = None
    """Median over the last steps, pauses left out."""
    until: float | None = None
    """The phase goes on by itself at that time."""
    device: str = ""
    oom_kills: int | None = None
    """The kernel's count of out-of-memory kills when the worker began."""


class StatusReporter:
    """Keeps status.json up to date from a thread of its own while the loop reports phases and progress."""

    def __init__(self, folder: RunFolder, status: Status, *, beat: float = HEARTBEAT_SECONDS) -> None:
        self.folder = folder
        self.status = status
        self._beat = beat
        self._durations: deque[float] = deque(maxlen=ETA_WINDOW)
        self._boundary = time.monotonic()
        """When the last step ended, moved on by pauses."""
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run_heartbeat, name="heartbeat", daemon=True)

    def __enter__(self) -> "StatusReporter":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        self._changed.set()
        self._thread.join(timeout=5)

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """What is going on now and how far it is: evaluate, sample, score, update, record, checkpoint, ..."""
        status = self.status
        is_new = name != status.phase or total != status.phase_total
        status.phase, status.phase_done, status.phase_total = name, done, total
        status.progress_at = time.time()
        if is_new:
            self._changed.set()

    def until(self, when: float | None) -> None:
        """The phase waits and goes on by itself at `when` (unix seconds); None where it does not."""
        self.status.until = when
        self._changed.set()

    def progress(self, step: int, steps: int) -> None:
        """`step` of `steps` are finished; called at each step boundary."""
        now = time.monotonic()
        if step > self.status.step:
            self._durations.append((now - self._boundary) / (step - self.status.step))
        self._boundary = now
        self.status.step, self.status.steps, self.status.progress_at = step, steps, time.time()
        if self._durations:
            # The mean, because an evaluation every few steps belongs to the time that is left; the median is for the
            # stall detector, which must not take an evaluation for the usual step.
            self.status.eta = statistics.mean(self._durations) * max(0, steps - step)
            self.status.step_seconds = statistics.median(self._durations)
        self._changed.set()

    def queued(self, ahead: list[str]) -> None:
        """The run waits for a device behind these runs."""
        reason = f"waits for {', '.join(ahead)}" if ahead else "waits for the device"
        if (self.status.state, self.status.reason) != ("queued", reason):
            self.status.state, self.status.reason = "queued", reason
            self._changed.set()

    def end(self, state: State, reason: str = "") -> None:
        """Write the final status. Retried for a while where the disk is full: without it the run would look crashed."""
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
        self._changed.set()

    def _set_state(self, state: State) -> None:
        self.status.state, self.status.progress_at = state, time.time()
        if state in ("running", "paused"):
            self.status.reason = ""
        self._changed.set()

    def _tick(self) -> None:
        """What the heartbeat thread does every `POLL_SECONDS` besides writing the file."""

    def _run_heartbeat(self) -> None:
        written = 0.0
        while not self._closed:
            self._tick()
            now = time.monotonic()
            if self._changed.is_set() or now - written >= self._beat:
                self._changed.clear()
                self._write()
                rotate(self.folder.log_path)
                written = now
            time.sleep(POLL_SECONDS)

    def _write(self) -> None:
        # A full disk must not stop the run: the next heartbeat tries again.
        with self._lock, contextlib.suppress(OSError):
            if not self._closed:
                self.status.heartbeat = time.time()
                self.folder.write_status(asdict(self.status))
