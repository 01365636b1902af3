"""The parent's end of one reward process: start, request, wait with a deadline, find the line where it hangs, kill.

In: which rewards it holds, then requests. Out: one result a call, or `ProcessLost`.
"""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from workbench.core.errors import RewardError
from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.api.signature import Shape
from workbench.rewards.runtime import messages
from workbench.rewards.runtime.child import ENVIRONMENT
from workbench.rewards.runtime.messages import Call, CallResult, Message, RunFacts

LOAD_TIMEOUT = 300.0
"""Seconds for imports at the top of reward files; torch on a busy machine needs many."""
_TRACE_WAIT = 3.0
"""Seconds to wait for the line at which a reward hangs; it comes at once unless the machine is busy."""
_FINISH_WAIT = 3.0
_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+)')


class ProcessLost(Exception):
    """The process is gone: it ended by itself, or took too long and was killed."""

    def __init__(self, running: int, ended: str = "", at: tuple[str, int] | None = None) -> None:
        super().__init__(ended or "no result in time")
        self.running = running
        """Number of the call that was running, in the last request."""
        self.ended = ended
        """How it ended by itself: `exit code 3`, `signal SIGSEGV`; '' where a call took too long."""
        self.at = at
        """Path of a reward's copy and the line at which it hung, where that could be found out."""


def refuse_inside() -> None:
    """Raises RewardError inside a reward process: a script whose function is a reward is loaded there from its top, and would do
    all of its work once more."""
    if os.environ.get(ENVIRONMENT):
        raise RewardError(
            "This code runs inside a reward process and tries to score or to start a run itself. Put "
            "that under `if __name__ == '__main__':` or into a file or cell of its own."
        )


class RewardProcess:
    """One process with several rewards. Made without waiting; the first request waits until they are loaded.

    Without rewards it is a spare: started, its imports done, until `assign` says what it holds.
    """

    def __init__(
        self,
        rewards: Sequence[RewardCode] = (),
        facts: RunFacts | None = None,
        load_timeout: float = LOAD_TIMEOUT,
    ) -> None:
        refuse_inside()
        if facts is not None:
            self.assign(rewards, facts, load_timeout)
        request_read, self._request = os.pipe()
        self._result, result_write = os.pipe()
        self._trace, trace_write = os.pipe()
        self._call = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._folder = tempfile.TemporaryDirectory(prefix="workbench-reward-", ignore_cleanup_errors=True)
        ends = (request_read, result_write, trace_write)
        passed = (*ends, self._call.fileno())
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "workbench.rewards.runtime.child", *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                process_group=0,  # what a reward starts is killed with it
                env={**os.environ, ENVIRONMENT: "1", "TMPDIR": self._folder.name},
            )
        finally:
            for end in ends:
                os.close(end)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._result, selectors.EVENT_READ)
        self._buffer = bytearray()
        self._scanned = 0
        self._shapes: Sequence[Shape] | None = None
        self._closed = False
        self._awaited: int | None = None
        """Results of the last request that have not come yet; None before the rewards are loaded."""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._popen.pid

    def assign(
        self, rewards: Sequence[RewardCode], facts: RunFacts, load_timeout: float = LOAD_TIMEOUT
    ) -> None:
        """Say which rewards it holds, once, before the first request."""
        self._load = messages.Load(rewards, facts)
        self._load_timeout = load_timeout

    def shapes(self) -> Sequence[Shape]:
        """The shapes of the loaded rewards, in order. Raises RewardError where one cannot be loaded."""
        if self._shapes is None:
            try:
                self._send(self._load)
                reply = self._receive(self._load_timeout)
            except ProcessLost as lost:
                if lost.ended:
                    raise RewardError(
                        f"The process that loads the rewards ended ({lost.ended}). Look for code at the top of a "
                        "reward file that ends the program, or for a library that crashes when imported."
                    ) from None
                at = f" It was at line {lost.at[1]}." if lost.at else ""
                raise RewardError(
                    f"A reward file was not loaded within {self._load_timeout:g} s.{at} Take slow work at "
                    "the top of the file out."
                ) from None
            if isinstance(reply, messages.LoadFailed):
                self.close()
                raise RewardError(reply.error)
            assert isinstance(reply, messages.RewardsLoaded)
            self._shapes, self._awaited = reply.shapes, 0
        return self._shapes

    def request(self, step: int, groups: Sequence[RewardInput], calls: Sequence[Call]) -> None:
        """Ask for calls on groups. Raises RewardError where loading failed, ProcessLost."""
        self.shapes()
        os.pwrite(self._call.fileno(), bytes(4), 0)
        self._awaited = len(calls)
        self._send(messages.ScoreRequest(step, groups, calls))

    def results(self, timeout: float) -> Sequence[CallResult]:
        """The results of the next calls, one at least. Raises ProcessLost.

        Calls before the running one may be lost with it: results are sent every few milliseconds.
        """
        message = self._receive(timeout)
        assert isinstance(message, messages.CallResults) and self._awaited
        self._awaited -= len(message.results)
        return message.results

    def kill(self) -> None:
        """End the process and all it started. From any thread; a thread that waits for a result gets ProcessLost."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def close(self) -> None:
        """End the process, by itself where it is idle, and release its pipes and folder.

        Only from the thread that waits for results, or while none does.
        """
        if self._closed:
            return
        self._closed = True
        os.close(self._request)  # an idle process sees this, lets its rewards finish and ends
        if self._awaited == 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_FINISH_WAIT)
        self.kill()
        self._selector.close()
        os.close(self._result)
        os.close(self._trace)
        self._call.close()
        self._folder.cleanup()

    def _send(self, message: Message) -> None:
        data = memoryview(messages.encode(message))
        try:
            while data:
                data = data[os.write(self._request, data) :]
        except OSError:
            raise self._ended() from None

    def _receive(self, timeout: float) -> Message:
        deadline = time.monotonic() + timeout
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            data = os.read(self._result, 1 << 20) if ready else None
            if data is None:
                lost = ProcessLost(self._running(), at=self._hanging_at())
                self.close()
                raise lost
            if not data:
                raise self._ended()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return messages.decode(line)

    def _hanging_at(self) -> tuple[str, int] | None:
        """Ask the hanging process, by signal, at which line of a reward it is."""
        paths = {reward.path for reward in self._load.rewards}
        self._popen.send_signal(signal.SIGUSR1)
        with selectors.DefaultSelector() as selector:
            selector.register(self._trace, selectors.EVENT_READ)
            text = ""
            deadline = time.monotonic() + _TRACE_WAIT
            while selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(self._trace, 1 << 16)
                if not data:
                    break
                text += data.decode(errors="replace")
                for frame in _FRAME.finditer(text):
                    if frame["path"] in paths:
                        return frame["path"], int(frame["line"])
        return None

    def _ended(self) -> ProcessLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)  # the pipe closes a moment before the process is gone
        code, running = self._popen.poll(), self._running()
        self.close()
        if code is None:
            return ProcessLost(running, "it closed its pipes")
        return ProcessLost(
            running, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        )

    def _running(self) -> int:
        return int.from_bytes(os.pread(self._call.fileno(), 4, 0), "little")
