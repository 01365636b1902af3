"""Which process is a run's worker, and is it still the same one: boot id, pid, start time and token together.

A pid alone is never trusted, and nothing is signalled before all four agree.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import psutil

TOKEN_VARIABLE = "WORKBENCH_RUN_TOKEN"
"""Set in a worker's environment, so that its children can be recognised even after it is gone."""
CLOCK_SLACK = 1.5
"""Seconds two readings of one process's start time may differ by: the boot time they refer to is kept in
whole seconds."""


class Identity(NamedTuple):
    """Identifies one process among all that ever ran on this machine."""

    pid: int
    create_time: float
    """Seconds from boot to the start of the process: wall-clock changes do not move it."""
    boot_id: str
    token: str
    """Random; stands on the worker's command line."""


def boot_id() -> str:
    """Changes with every start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def start_time(process: psutil.Process) -> float:
    """Seconds from boot to the start of `process`."""
    return float(process.create_time() - psutil.boot_time())


def current(token: str) -> Identity:
    """Identity of the calling process."""
    return Identity(os.getpid(), start_time(psutil.Process()), boot_id(), token)


def find(identity: Identity) -> psutil.Process | None:
    """The process of that identity if it runs (a zombie does not), else None."""
    if identity.boot_id != boot_id() or identity.pid <= 0 or not identity.token:
        return None
    with contextlib.suppress(psutil.Error, OverflowError):  # no pid has more than 32 bits
        process = psutil.Process(identity.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if abs(start_time(process) - identity.create_time) > CLOCK_SLACK:
            return None
        return process if identity.token in process.cmdline() else None
    return None


def alive(identity: Identity) -> bool:
    """Whether that very process runs."""
    return find(identity) is not None


def find_by_token(token: str) -> psutil.Process | None:
    """The worker that was started with this token, for as long as its status does not name its process."""
    if not token:
        return None
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if token in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                return process
    return None


def process_tree(identity: Identity) -> list[psutil.Process]:
    """Living processes that belong to the worker, itself excluded: everything in its session while it lives,
    and everything with its token in the environment, also when it is gone."""
    leader = find(identity)
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in (identity.pid, os.getpid()) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # A session keeps its number after its leader is gone, and a new leader may get the number: only a living
            # leader proves that the session is the worker's.
            in_session = leader is not None and os.getsid(process.pid) == leader.pid
            if in_session or process.environ().get(TOKEN_VARIABLE) == identity.token:
                members.append(process)
    return members


def kill_process_tree(identity: Identity, include_worker: bool = True) -> None:
    """SIGKILL the worker and everything that belongs to it, until none is left."""
    for _ in range(20):
        members = process_tree(identity)
        worker = find(identity) if include_worker else None
        if not members and worker is None:
            return
        for process in members + ([worker] if worker else []):
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(members + ([worker] if worker else []), timeout=0.5)
