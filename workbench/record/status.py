"""status.json: what the worker reports of itself, and the states a run ends in."""

from dataclasses import dataclass
from typing import Literal

State = Literal["queued", "starting", "running", "paused", "stopping", "finished", "stopped", "failed"]
ENDED: frozenset[str] = frozenset({"finished", "stopped", "failed"})


@dataclass(slots=True)
class Status:
    """status.json: what the worker says of itself. Times are unix seconds."""

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
    """The process lives."""
    progress_at: float = 0.0
    """The loop moved on: a phase began, counted further, or ended."""
    started: float = 0.0
    """This worker's start."""
    earlier: float = 0.0
    """Seconds that earlier workers of the same run took."""
    ended: float | None = None
    reason: str = ""
    eta: float | None = None
    """Seconds to the end at the pace of the last steps."""
    step_seconds: float | None = None
    """Median of the last steps, pauses left out."""
    until: float | None = None
    """The phase goes on by itself at that time."""
    device: str = ""
    oom_kills: int | None = None
    """The kernel's count of out-of-memory kills when the worker began."""
