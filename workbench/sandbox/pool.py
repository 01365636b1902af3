"""The sandbox: a few fork-servers that keep running, and jobs that run in them.

    with Sandbox() as sandbox:
        result = sandbox.run(Job("def solve(n): return n * n", calls=(Call("solve", (7,)),)))
        compare_exact(49, result.values[0])

Safe to use from several threads. A fork-server that is lost is replaced, and its job tried once more.
"""

import json
import os
import queue
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from workbench.core.errors import SandboxError
from workbench.sandbox import outcome, probe
from workbench.sandbox.backend import Backend, bubblewrap_works, require_guard
from workbench.sandbox.job import LARGEST_SOURCE, Job, Result, failed
from workbench.sandbox.server import Raw, Server, ServerLost


class Sandbox:
    """Runs model-written code. SandboxError at once if nothing on this machine can contain it.

    `backend` None takes bubblewrap around the guard where it works, else the guard alone. `probed` False
    leaves out the escape attempts at the start (then `badge` says so).
    """

    def __init__(self, servers: int = 2, backend: Backend | None = None, probed: bool = True) -> None:
        require_guard()
        if servers < 1:
            raise SandboxError(
                f"servers was {servers}; allowed are 1 and more. Two suit two processor cores."
            )
        self.backend: Backend = backend or ("bwrap" if bubblewrap_works() else "guard")
        self._owner = os.getpid()
        self._servers: list[Server | None] = [None] * servers
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(servers, thread_name_prefix="sandbox")
        self._closed = False
        try:
            self._start_all()
            self.badge = probe.probe(self.run, self.backend) if probed else probe.not_probed(self.backend)
        except ServerLost as error:
            self.close()
            raise SandboxError(f"The sandbox cannot start: {error}. Model-written code is not run.") from None
        except BaseException:
            self.close()
            raise
        if self.badge.escaped:
            self.close()
            raise SandboxError(
                f"The sandbox is not tight on this machine: {', '.join(self.badge.escaped)} got out. "
                "Model-written code is not run. Use another machine or container profile, or leave out "
                "rewards that run code."
            )

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def server_pids(self) -> list[int]:
        """Process ids of the fork-servers that run now."""
        return [server.pid for server in self._servers if server is not None]

    def run(self, job: Job) -> Result:
        """Run one job to its end, whatever the program does. SandboxError if this sandbox is closed."""
        if self._closed or os.getpid() != self._owner:
            raise SandboxError(
                "this sandbox is closed, or belongs to the process this one was forked from. Make a new one."
            )
        size = len(job.source)
        if size > LARGEST_SOURCE:
            return failed(
                "refused", job, f"the program has {size:,} characters; at most {LARGEST_SOURCE:,} are run"
            )
        slot = self._free.get()
        try:
            if job.calls:
                return self._run_calls(slot, job)
            return outcome.joined([self._run_program(slot, job, text) for text in job.stdin or ("",)])
        except ServerLost as error:
            return failed("infra_error", job, f"{error}; tried twice")
        finally:
            self._free.put(slot)

    def run_many(self, jobs: Iterable[Job]) -> list[Result]:
        """Run jobs on all fork-servers at once. Results in the order of the jobs."""
        return list(self._threads.map(self.run, jobs))

    def close(self) -> None:
        """End the fork-servers and remove their folders. May be called twice."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        for slot, server in enumerate(self._servers):
            if server is not None:
                self._servers[slot] = None
                server.close()

    def _start_all(self) -> None:
        """All at once, since each takes some time to start."""
        for slot in range(len(self._servers)):
            self._servers[slot] = Server(self.backend)
        for slot, server in enumerate(self._servers):
            assert server is not None
            server.wait_ready()
            self._free.put(slot)

    def _run_calls(self, slot: int, job: Job) -> Result:
        nonce, payload = _payload(job, as_program=False)
        raw = self._attempt(slot, payload, b"", job)
        return outcome.read_calls(raw, nonce, job.calls, job.limits)

    def _run_program(self, slot: int, job: Job, text: str) -> Result:
        nonce, payload = _payload(job, as_program=True)
        raw = self._attempt(slot, payload, text.encode("utf-8", "surrogateescape"), job)
        return outcome.read_program(raw, nonce, job.limits)

    def _attempt(self, slot: int, payload: bytes, stdin: bytes, job: Job) -> Raw:
        """Run on this slot's fork-server; replace a lost one and try once more."""
        try:
            return self._server(slot).run(payload, stdin, job.limits)
        except ServerLost:
            self._drop(slot)
        except BaseException:  # an interrupt in the middle: the protocol's state is unknown
            self._drop(slot)
            raise
        try:
            return self._server(slot).run(payload, stdin, job.limits)
        except BaseException:
            self._drop(slot)
            raise

    def _server(self, slot: int) -> Server:
        server = self._servers[slot]
        if server is None:
            if self._closed:
                raise SandboxError("this sandbox was closed while a job was waiting. Make a new one.")
            server = Server(self.backend)
            self._servers[slot] = server
            server.wait_ready()
        return server

    def _drop(self, slot: int) -> None:
        server = self._servers[slot]
        self._servers[slot] = None
        if server is not None:
            server.close()


def _payload(job: Job, as_program: bool) -> tuple[str, bytes]:
    """A fresh nonce, and everything that is sent to the job's process. It holds no expected value."""
    nonce = secrets.token_hex(16)
    calls = [(call.name, call.args) for call in job.calls]
    payload = {"nonce": nonce, "source": job.source, "calls": calls, "as_program": as_program}
    return nonce, json.dumps(payload).encode()
