"""The parent's end of one fork-server: hands it a job, enforces wall time and output, collects the rest.

In: payload, stdin bytes, limits. Out: `Raw`, nothing interpreted. Raises `ServerLost` when the fork-server
itself failed.
"""

import contextlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from typing import Any, NamedTuple

from workbench.sandbox.backend import ENVIRONMENT, Backend, server_command
from workbench.sandbox.inside import cleaning
from workbench.sandbox.inside.guard import Caps
from workbench.sandbox.job import Limits

START_S = 30.0
REPLY_S = 10.0
"""Seconds the fork-server may take to fork, or to report a job that has been killed."""
CHUNK = 1 << 16


class ServerLost(Exception):
    """The fork-server ended, hung, or could not be started. Not the program's fault."""


class Raw(NamedTuple):
    """The output of a job: untrusted bytes, and the kernel's figures."""

    stdout: bytes
    stderr: bytes
    report: bytes
    exit_code: int
    """Negative: the signal that ended it."""
    stopped: str | None
    """timeout | output | disk | threads: the limit that was passed and that the job was killed for."""
    wall: float
    cpu: float
    maxrss: int


class Server:
    """One fork-server that keeps running, one job at a time."""

    def __init__(self, backend: Backend) -> None:
        self._base = tempfile.mkdtemp(prefix="workbench-sandbox-")
        weakref.finalize(self, cleaning.remove, self._base)  # at the latest when this process ends
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the server)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                server_command(backend, theirs.fileno(), self._base),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                cwd="/",
                env=ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C in the trainer's terminal is the trainer's
            )
        except OSError as error:
            self._discard()
            raise ServerLost(f"the fork-server could not be started: {error}") from None
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Process id of the fork-server (of bubblewrap, where that is around it)."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Block until the fork-server has confined itself. ServerLost with its message if it could not."""
        reply, _ = self._receive(START_S)
        if "ready" not in reply:
            raise ServerLost(f"the fork-server could not confine itself: {reply.get('failed')}")

    def run(self, payload: bytes, stdin: bytes, limits: Limits) -> Raw:
        """Run one job to its end, or to a limit."""
        caps = Caps(
            limits.memory_mb, math.ceil(limits.wall_s) + 1, limits.disk_mb, limits.files, limits.threads
        )
        with contextlib.ExitStack() as close:
            streams = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
            # Descriptors 0 to 4 of the job: stdin, stdout, stderr, results, payload.
            theirs = [_memory_file(stdin), *(write for _, write in streams), _memory_file(payload)]
            ours = [read for read, _ in streams]
            for descriptor in ours:
                close.callback(os.close, descriptor)
            try:
                request = json.dumps({"caps": caps}).encode()
                socket.send_fds(self._control, [request], theirs)
            except OSError as error:
                raise ServerLost(f"the fork-server is gone: {error}") from None
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            _, descriptors = self._receive(REPLY_S)
            pidfd = descriptors[0]
            close.callback(os.close, pidfd)
            try:
                outputs, stopped, wall = self._follow(ours, pidfd, limits)
                ended, _ = self._receive(REPLY_S)
            except BaseException:
                _kill(pidfd)
                raise
        reason = stopped or ended["stopped"]
        return Raw(*outputs, ended["status"], reason, wall, ended["cpu"], ended["maxrss"])

    def close(self) -> None:
        """End the fork-server with its job and remove its folder. Never raises, may be called twice."""
        self._control.close()  # the server sees this and ends by itself; bubblewrap ends with it
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._discard()

    def _discard(self) -> None:
        self._control.close()
        self._log.close()
        cleaning.remove(self._base)

    def _follow(
        self, ours: list[int], pidfd: int, limits: Limits
    ) -> tuple[tuple[bytes, bytes, bytes], str | None, float]:
        """Collect the streams until the job's end is reported; kill it at its deadline or past its output.

        Closed streams alone are not an end: a program can close them and stay. Its time begins with the first
        line on the result pipe: what came before was our work, however busy the machine is.
        """
        *_, report = ours
        started, deadline = None, time.monotonic() + REPLY_S
        kept = {descriptor: bytearray() for descriptor in ours}
        poll = select.poll()
        for descriptor in ours:
            poll.register(descriptor, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        waiting, stopped = {*ours, self._control.fileno()}, None
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0 and stopped is None:
                stopped = "timeout"
                _kill(pidfd)
            if left < -REPLY_S:
                raise ServerLost("a killed job did not end")
            for descriptor, _ in poll.poll(max(1.0, left * 1000) if stopped is None else 1000):
                if descriptor == self._control.fileno():
                    poll.unregister(descriptor)  # the report is read later: what is left in the pipes first
                    waiting.remove(descriptor)
                    continue
                chunk = os.read(descriptor, CHUNK)
                if not chunk:
                    poll.unregister(descriptor)
                    waiting.remove(descriptor)
                if descriptor == report and started is None:
                    started = time.monotonic()
                    deadline = started + limits.wall_s
                free = limits.output_bytes - len(kept[descriptor])
                kept[descriptor] += chunk[:free]
                if len(chunk) > free and stopped is None:
                    stopped = "output"
                    _kill(pidfd)
        stdout, stderr, lines = (bytes(kept[descriptor]) for descriptor in ours)
        return (stdout, stderr, lines), stopped, time.monotonic() - started if started else 0.0

    def _receive(self, timeout: float) -> tuple[dict[str, Any], list[int]]:
        """One message of the fork-server, with the descriptors that came along."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise ServerLost(f"the fork-server did not answer within {timeout:g} s")
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, 4096, 1)
        except OSError as error:
            raise ServerLost(f"the fork-server is gone: {error}") from None
        if not message:
            raise ServerLost(f"the fork-server ended: {self._last_line()}")
        return json.loads(message), list(descriptors)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without an error message"


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
