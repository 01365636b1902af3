"""What state a run is in, derived from what its worker said last and from whether that very process still
lives.

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
from workbench.record.folder import RunFolder, folders
from workbench.record.status import ENDED

STALL_SECONDS = 300.0
HEARTBEAT_SECONDS = 30.0
COMING_UP_SECONDS = 3.0
"""Between a run folder's birth and the moment its worker can be seen."""
LAST_LINES = 20


class RunState(NamedTuple):
    """A run as it is now."""

    id: str
    path: Path
    state: str
    """queued, starting, running, paused, stopping; finished, stopped, failed; crashed (the process is gone
    without a last word), interrupted (the machine was restarted), damaged (the folder cannot be read)."""
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
    """Of its newest worker."""
    seconds: float | None = None
    """It has run so long, all its workers together; dead time between them left out."""
    ended: float | None = None
    heartbeat: float | None = None
    until: float | None = None
    """What it does now goes on by itself at that time, at the latest: it waits for people."""
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


def runs(root: Path | str) -> list[RunState]:
    """All runs below `root`, newest first; folders that cannot be read are listed as damaged."""
    return [state(folder) for folder in folders(root)]


def identity_of(status: Mapping[str, Any]) -> identity.Identity | None:
    """The worker a status speaks of; None before it has come up."""
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
    said = str(status.get("state", ""))
    living = is_alive(status)
    derived, reason, stalled = said, str(status.get("reason") or ""), ""
    if said not in ENDED:
        if living:
            stalled = _stalled(status)
        elif status.get("boot_id") != identity.boot_id():
            derived = "interrupted"
            reason = f"The machine was restarted at step {_whole(status.get('step'))} (it was {said})."
        else:
            derived, reason = "crashed", _why_gone(folder, status)
    ended = (
        status.get("ended")
        if derived in ENDED
        else (status.get("heartbeat") if derived in ("crashed", "interrupted") else None)
    )
    started = _number(status.get("started"))
    until = _number(ended) or time.time()
    return RunState(
        id=folder.id,
        path=folder.path,
        state=derived,
        alive=living,
        reason=reason,
        stalled=stalled,
        phase=str(status.get("phase") or ""),
        phase_done=_whole(status.get("phase_done")),
        phase_total=_whole(status.get("phase_total")),
        step=_whole(status.get("step")),
        steps=_whole(status.get("steps")),
        eta=_number(status.get("eta")),
        step_seconds=_number(status.get("step_seconds")),
        started=started,
        seconds=None if started is None else (_number(status.get("earlier")) or 0.0) + until - started,
        ended=_number(ended),
        heartbeat=_number(status.get("heartbeat")),
        until=_number(status.get("until")) if living else None,
        device=str(status.get("device") or ""),
        kind=str(about.get("kind") or "train"),
        log=tuple(folder.log_tail(LAST_LINES)) if derived in ("failed", "crashed", "interrupted") else (),
    )


def is_alive(status: Mapping[str, Any]) -> bool:
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
    now = time.time()
    silent = now - float(status.get("heartbeat") or now)
    if silent > HEARTBEAT_SECONDS:
        return f"The process exists but has given no sign of life for {_span(silent)}."
    if status.get("state") in ("running", "stopping", "starting"):
        still = now - float(status.get("progress_at") or now)
        if still > max(STALL_SECONDS, 10 * float(status.get("step_seconds") or 0.0)):
            return f"No progress for {_span(still)} (phase: {status.get('phase') or 'start'})."
    return ""


def _why_gone(folder: RunFolder, status: Mapping[str, Any]) -> str:
    if status.get("pid") is None:
        return "The worker never came up. worker.log says why."
    where = f"The worker process is gone; it was at step {_whole(status.get('step'))}"
    where += f", phase {status['phase']}." if status.get("phase") else "."
    before, now = status.get("oom_kills"), oom_kills()
    if before is not None and now is not None and now > before:
        return (
            f"{where} The kernel has killed a process for lack of memory since it began: probably this one."
        )
    for line in reversed(folder.log_tail(LAST_LINES)):
        if line.startswith(EXIT_MARK):
            return f"{where} {line.removeprefix(EXIT_MARK).strip()}"
        if line.startswith("Fatal Python error"):
            return f"{where} {line}"
    return f"{where} It left no last word: it was killed from outside, or the machine ran out of memory."


EXIT_MARK = "workbench:"


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
    """How many processes the kernel has killed for lack of memory since boot; None where it does not tell."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return None
    return None


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
