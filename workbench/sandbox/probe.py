"""Harmless attacks on the sandbox before it is trusted, observed from outside.

In: how to run a job. Out: a `Badge` for the screen, and the names of the attempts that got out.
"""

import ctypes
import os
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from workbench.sandbox import programs
from workbench.sandbox.backend import Backend
from workbench.sandbox.inside import cleaning, landlock
from workbench.sandbox.job import Call, Job, Limits, Result

QUICK = Limits(wall_s=10.0, memory_mb=128)
WAIT_S = 0.5
WORDS = {"bwrap": "bubblewrap around Landlock and seccomp", "guard": "Landlock and seccomp"}


@dataclass(frozen=True, slots=True)
class Badge:
    """What pages show about the sandbox."""

    backend: Backend
    contained: int
    attempts: int
    message: str
    escaped: tuple[str, ...] = ()
    """Names of the attempts that succeeded."""


def not_probed(backend: Backend) -> Badge:
    """For a sandbox without the escape attempts."""
    return Badge(backend, 0, 0, f"Model-written code runs inside {WORDS[backend]}; not probed.")


def probe(run: Callable[[Job], Result], backend: Backend) -> Badge:
    """Try the quick attacks. Takes about half a second."""
    attacks = [attack for attack in programs.load("attacks") if attack.name not in programs.SLOW]
    escaped = attempt(run, attacks, QUICK)
    contained = len(attacks) - len(escaped)
    message = (
        f"Model-written code runs inside {WORDS[backend]} (version {landlock.abi()}): "
        f"{contained} of {len(attacks)} escape attempts failed."
    )
    return Badge(backend, contained, len(attacks), message, tuple(escaped))


def attempt(
    run: Callable[[Job], Result], attacks: Iterable[programs.Program], limits: Limits
) -> dict[str, Result]:
    """Run attacks one after the other; those that were not contained, by name."""
    escaped = {}
    with Targets() as targets:
        for attack in attacks:
            given = limits_for(attack, limits)
            result = run(Job(attack.source, (Call("attack", (targets.paths,)),), limits=given))
            expected = programs.CONTAINED.get(attack.name, programs.DENIED)
            if (
                result.status not in expected
                or result.values[0] not in (False, None)
                or not targets.untouched()
            ):
                escaped[attack.name] = result
    return escaped


def limits_for(program: programs.Program, limits: Limits) -> Limits:
    """Less time for what only waits."""
    return replace(limits, wall_s=WAIT_S) if program.name in programs.WAITING else limits


class Targets:
    """Targets of the attacks, all of them made here: files, a process, sockets; and whether each is untouched afterwards."""

    def __enter__(self) -> "Targets":
        self._folder = Path(tempfile.mkdtemp(prefix="workbench-targets-"))
        self._secret, self._victim_file = self._folder / "secret", self._folder / "victim"
        self._secret.write_text(secrets.token_hex())
        self._victim_file.write_text("unchanged")
        self._victim_file.chmod(0o640)
        self._before = self._files()
        waits = "import sys; sys.stdin.read()"  # ends when we do
        self._victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", waits], stdin=subprocess.PIPE, env={}
        )
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"workbench-{secrets.token_hex(8)}"
        self._abstract.bind("\0" + name)
        for listener in (self._tcp, self._udp, self._abstract):
            listener.setblocking(False)
        self._memory = ctypes.create_string_buffer(16)
        self.paths: dict[str, Any] = {
            "folder": str(self._folder),
            "secret_file": str(self._secret),
            "victim_file": str(self._victim_file),
            "victim_pid": self._victim.pid,
            "parent_pid": os.getpid(),
            "address": ctypes.addressof(self._memory),
            "tcp_port": self._tcp.getsockname()[1],
            "udp_port": self._udp.getsockname()[1],
            "abstract_name": name,
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in (self._tcp, self._udp, self._abstract):
            listener.close()
        self._victim.kill()
        self._victim.communicate()
        cleaning.remove(str(self._folder))

    def untouched(self) -> bool:
        """Nothing was changed, killed, or reached since the targets were made."""
        return self._files() == self._before and self._victim.poll() is None and not self._was_reached()

    def _files(self) -> tuple[object, ...]:
        found = self._victim_file.stat() if self._victim_file.exists() else None
        mode = found and (stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_nlink)
        return sorted(os.listdir(self._folder)), mode, found and self._victim_file.read_text()

    def _was_reached(self) -> bool:
        try:
            self._tcp.accept()[0].close()
            return True
        except BlockingIOError:
            pass
        for listener in (self._udp, self._abstract):
            try:
                listener.recv(16)
                return True
            except BlockingIOError:
                continue
        return False
