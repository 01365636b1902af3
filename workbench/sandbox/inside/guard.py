"""The guard: the rights that a process gives up for good before it runs untrusted code.

What stays possible: to see by stat(2) that a file exists (Landlock has no right for it), and to use the
processor and the kernel's allowed calls. It is a strong fence, not a virtual machine.

`confine_server` is called once by the fork-server, `confine_job` by every job it forks. All of it is one-way.
Any step that fails raises OSError, and then no untrusted code runs.
"""

import ctypes
import os
import resource
import signal
import struct
from typing import NamedTuple

from . import landlock, seccomp

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITY_VERSION_3 = 0x20080522
MIB = 1 << 20
GUARD_FAILED = 125
"""Exit code of a job whose guard could not be put on; its program never ran."""
DEVICES = (
    ("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE | landlock.TRUNCATE),
    ("/dev/zero", landlock.READ_FILE),
    ("/dev/urandom", landlock.READ_FILE),
)

_libc = ctypes.CDLL(None, use_errno=True)


class Caps(NamedTuple):
    """Limits of one job as kernel and fork-server enforce them (in JSON a list, in this order)."""

    memory_mb: int
    cpu_s: int
    disk_mb: int
    files: int
    threads: int


class Paths(NamedTuple):
    """What Python itself must reach (in JSON a list, in this order)."""

    packages: list[str]
    """Folders of the standard library; a site-packages folder inside them stays closed."""
    libraries: list[str]
    """Folders with the shared libraries that extension modules load."""
    data: list[str]
    """Whole folders to read, such as the time zones."""


def confine_server(base: str, paths: Paths) -> None:
    """First layer, for the fork-server and all its jobs: no privileges, and only Python's own files.

    /proc stays readable here: the fork-server watches its jobs through it.
    """
    _drop_capabilities()
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    rules = [*DEVICES, (base, landlock.WORK), ("/proc", landlock.READ)]
    rules += [(path, landlock.READ) for path in paths.data]
    for folder in paths.packages:
        rules.append((folder, landlock.READ_DIR))  # imports list it
        rules += [(path, landlock.READ) for path in _entries(folder) if not path.endswith("-packages")]
    for folder in paths.libraries:
        rules += [(path, landlock.READ) for path in _entries(folder) if _is_library(path)]
    landlock.restrict(rules, isolate=False)
    seccomp.plain_part(os.uname().machine)


def confine_job(server: int, work: str, paths: Paths, caps: Caps) -> None:
    """Second layer, in the job: limits, its own folder only, no process to signal, few system calls."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        raise OSError("the fork-server ended before the job began")
    _limit(resource.RLIMIT_AS, caps.memory_mb * MIB)
    _limit(resource.RLIMIT_CPU, caps.cpu_s)
    _limit(resource.RLIMIT_FSIZE, caps.disk_mb * MIB)
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_STACK, 8 * MIB)
    _limit(
        resource.RLIMIT_CORE, 1
    )  # 1 byte: the one value at which a core-dump program is not started either
    readable = [*paths.packages, *paths.libraries, *paths.data]
    landlock.restrict([*DEVICES, (work, landlock.WORK), *((path, landlock.READ) for path in readable)])
    seccomp.install(os.uname().machine, os.getpid())


def _limit(what: int, value: int) -> None:
    """Soft and hard at once; never above what the administrator set."""
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _drop_capabilities() -> None:
    """Root without capabilities cannot pass over file modes, raise limits, mount, or trace."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _entries(folder: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(folder)]
    except OSError:
        return []


def _is_library(path: str) -> bool:
    name = os.path.basename(path)
    return ".so" in name or name.endswith(("-linux-gnu", "-linux-musl"))
