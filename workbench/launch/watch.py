"""What state a run is in, derived from the status its worker last wrote and from whether that very process still runs.

In: a run folder. Out: a `RunState`. Reads only, and never raises for a damaged folder.
"""

import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.errors import RunError
from workbench.launch import identity
from workbench.record.folder import RunFolder
from workbench.record.status import ENDED

STALL_SECONDS = 300.0
"""A run without progress for this long, and for ten times its usual step, counts as stalled."""
SILENT_SECONDS = 30.0
"""A worker without a heartbeat for this long counts as stalled."""
COMING_UP_SECONDS = 3.0
"""Between the making of a run folder and the moment its worker can be found among the processes."""
LOG_LINES = 20
EXIT_MARK = "workbench:"
"""Begins the line of worker.log in which the launcher notes how the process ended."""


class RunState(NamedTuple):
    """A run as it is now."""

    id: str
    path: Path
    state: str
    """queued, starting, running, paused, stopping; finished, stopped, failed; crashed (the process is gone
    without a final status), interrupted (the machine was restarted), damaged (the folder cannot be read)."""
    alive: bool
    """Whether its worker process runs."""
    reason: str = ""
    """Why it is in this state, in a sentence."""
    stalled: str = ""
    """Not empty: alive, but without progress, and since when."""
    phase: str = ""
    phase_done: int = 0
    phase_total: int = 0
    step: int = 0
    steps: int = 0
    eta: float | None = None
    step_seconds: float | None = None
    started: float | None = None
    """When its newest worker started. Times are unix seconds."""
    seconds: float | None = None
    """How long it has run, all its workers together; the time between them left out."""
    ended: float | None = None
    heartbeat: float | None = None
    until: float | None = None
    """It waits for human ratings, and goes on by itself at that time at the latest."""
    device: str = ""
    kind: str = "train"
    log: tuple[str, ...] = ()
    """The last lines of worker.log, for runs that failed or crashed."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in ENDED or self.state in ("crashed", "interrupted", "damaged")

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self._asdict(), "path": str(self.path), "log": list(self.log)}


def identity_of(status: Mapping[str, Any]) -> identity.Identity | None:
    """The process that a status names; None before the worker has come up."""
    pid, created = status.get("pid"), status.get("create_time")
    if not isinstance(pid, int) or not isinstance(created, int | float):
        return None
    return identity.Identity(
        pid, float(created), str(status.get("boot_id", "")), str(status.get("token", ""))
    )


def state(folder: RunFolder) -> RunState:
    """The state of one run, now."""
    if damage := folder.damage():
        return RunState(folder.id, folder.path, "damaged", False, damage)
    try:
        status, about = folder.status(), folder.about()
    except RunError as error:  # removed or torn in this very moment
        return RunState(folder.id, folder.path, "damaged", False, str(error))
    status = status or {
        "state": "starting",
        "started": about.get("created", 0.0),
        "boot_id": identity.boot_id(),
    }
    living = _is_alive(status)
    name, reason, stalled = str(status.get("state", "")), str(status.get("reason") or ""), ""
    ended = status.get("ended") if name in ENDED else None
    if name not in ENDED and living:
        stalled = _stalled(status)
    elif name not in ENDED:
        ended = status.get("heartbeat")
        if status.get("boot_id") == identity.boot_id():
            name, reason = "crashed", _why_gone(folder, status)
        else:
            reason = f"The machine was restarted at step {_integer(status.get('step'))} (it was {name})."
            name = "interrupted"
    started = _number(status.get("started"))
    until = _number(ended) or time.time()
    return RunState(
        id=folder.id,
        path=folder.path,
        state=name,
        alive=living,
        reason=reason,
        stalled=stalled,
        phase=str(status.get("phase") or ""),
        phase_done=_integer(status.get("phase_done")),
        phase_total=_integer(status.get("phase_total")),
        step=_integer(status.get("step")),
        steps=_integer(status.get("steps")),
        eta=_number(status.get("eta")),
        step_seconds=_number(status.get("step_seconds")),
        started=started,
        seconds=None if started is None else (_number(status.get("earlier")) or 0.0) + until - started,
        ended=_number(ended),
        heartbeat=_number(status.get("heartbeat")),
        until=_number(status.get("until")) if living else None,
        device=str(status.get("device") or ""),
        kind=str(about.get("kind") or "train"),
        log=tuple(folder.log_tail(LOG_LINES)) if name in ("failed", "crashed", "interrupted") else (),
    )


def _is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the worker that wrote this status runs, or is just coming up."""
    if who := identity_of(status):
        return identity.alive(who)
    if status.get("boot_id") != identity.boot_id():
        return False
    token = str(status.get("token") or "")
    if token and identity.find_by_token(token):
        return True
    return time.time() - float(status.get("started") or 0.0) < COMING_UP_SECONDS


def _stalled(status: Mapping[str, Any]) -> str:
    """Why a living worker counts as stalled, '' where it does not."""
    now = time.time()
    silent = now - float(status.get("heartbeat") or now)
    if silent > SILENT_SECONDS:
        return f"The process exists but has given no sign of life for {_duration(silent)}."
    if status.get("state") in ("running", "stopping", "starting"):
        still = now - float(status.get("progress_at") or now)
        if still > max(STALL_SECONDS, 10 * float(status.get("step_seconds") or 0.0)):
            return f"No progress for {_duration(still)} (phase: {status.get('phase') or 'start'})."
    return ""


def _why_gone(folder: RunFolder, status: Mapping[str, Any]) -> str:
    """Why the process of a worker without a final status is gone, as far as kernel and log show."""
    if status.get("pid") is None:
        return "The worker never came up. worker.log says why."
    where = f"The worker process is gone; it was at step {_integer(status.get('step'))}"
    where += f", phase {status['phase']}." if status.get("phase") else "."
    before, now = status.get("oom_kills"), oom_kills()
    if before is not None and now is not None and now > before:
        return (
            f"{where} The kernel has killed a process for lack of memory since it began: probably this one."
        )
    for line in reversed(folder.log_tail(LOG_LINES)):
        if line.startswith(EXIT_MARK):
            return f"{where} {line.removeprefix(EXIT_MARK).strip()}"
        if line.startswith("Fatal Python error"):
            return f"{where} {line}"
    return f"{where} It wrote no final status: it was killed from outside, or the machine ran out of memory."


def exit_sentence(code: int) -> str:
    """How a process ended, from its return code as subprocess gives it."""
    if code >= 0:
        return f"It ended with exit code {code}."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"It was ended by signal {-code} ({name})."


def oom_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory since boot; None where it does not count them."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return None
    return None


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _integer(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
