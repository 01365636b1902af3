"""The parent's end of one reward process: start, ask, wait with a deadline, find out where it hangs, kill.

In: descriptions of rewards, then groups. Out: one answer for each call, or an exception that says how the
process was lost.
"""

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from workbench.core.errors import RewardError
from workbench.rewards.api.reward_input import RewardInput
from workbench.rewards.runtime.child import ENVIRONMENT
from workbench.rewards.runtime.runner import Answer, Description, RunFacts

Call = tuple[int, int, int | None]
"""Which group of the request, which reward, which sample; None = one call for the whole group."""

LOAD_TIMEOUT = 300.0
"""Seconds for imports at the top of reward files; torch on a busy machine needs many."""
_TRACE_WAIT = 0.5
_FINISH_WAIT = 3.0
_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+)')


class Lost(Exception):
    """The process is of no use any more."""

    running: int
    """Number of the call, in the last `ask`, that was running."""


class TooLate(Lost):
    """A call did not come back in time."""

    def __init__(self, running: int, where: tuple[str, int] | None) -> None:
        super().__init__("no answer in time")
        self.running = running
        self.where = where
        """Path of a reward's source and the line it was at, if that could be found out."""


class Ended(Lost):
    """The process ended by itself."""

    def __init__(self, running: int, how: str) -> None:
        super().__init__(how)
        self.running = running
        self.how = how
        """`exit code 3` or `signal SIGSEGV`."""


def refuse_inside() -> None:
    """Raises RewardError inside a reward process: a script whose function is a reward is loaded there from its top, and would do
    all of its work once more."""
    if os.environ.get(ENVIRONMENT):
        raise RewardError(
            "This code runs inside a reward process and tries to score or to start a run itself. Put "
            "that under `if __name__ == '__main__':` or into a file or cell of its own."
        )


class RewardProcess:
    """One process with several rewards. Made without waiting; the first `ask` waits until they are loaded.

    Without rewards it is a spare: started, its imports done, waiting to be told by `take`.
    """

    def __init__(
        self,
        rewards: Sequence[Description] = (),
        facts: RunFacts | None = None,
        load_timeout: float = LOAD_TIMEOUT,
    ) -> None:
        refuse_inside()
        self.take(rewards, facts, load_timeout)
        request_read, self._request = os.pipe()
        self._answer, answer_write = os.pipe()
        self._trace, trace_write = os.pipe()
        self._place = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._folder = tempfile.TemporaryDirectory(prefix="workbench-reward-", ignore_cleanup_errors=True)
        ends = (request_read, answer_write, trace_write)
        try:
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "workbench.rewards.runtime.child",
                    *map(str, (*ends, self._place.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(*ends, self._place.fileno()),
                process_group=0,  # what a reward starts is killed with it
                env={**os.environ, ENVIRONMENT: "1", "TMPDIR": self._folder.name},
            )
        finally:
            for end in ends:
                os.close(end)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answer, selectors.EVENT_READ)
        self._buffer = bytearray()
        self._scanned = 0
        self._shapes: list[dict[str, Any]] | None = None
        self._closed = False
        self._idle = False
        """It has loaded its rewards and waits for a request."""
        self._awaited = 0

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._popen.pid

    def take(
        self, rewards: Sequence[Description], facts: RunFacts | None, load_timeout: float = LOAD_TIMEOUT
    ) -> None:
        """Say which rewards it holds. Before the first question only."""
        self._paths = {reward["path"] for reward in rewards}
        self._first = {"rewards": list(rewards), "facts": facts._asdict() if facts else {}}
        self._load_timeout = load_timeout

    def shapes(self) -> list[dict[str, Any]]:
        """The shapes of the loaded rewards, in order. Raises RewardError where one cannot be loaded."""
        if self._shapes is None:
            try:
                self._send(self._first)
                said = self._receive(self._load_timeout)
            except TooLate as error:
                at = f" It was at line {error.where[1]}." if error.where else ""
                raise RewardError(
                    f"A reward file was not loaded within {self._load_timeout:g} s.{at} Take slow work at "
                    "the top of the file out."
                ) from None
            except Ended as error:
                raise RewardError(
                    f"The process that loads the rewards ended ({error.how}). Look for code at the top of a "
                    "reward file that ends the program, or for a library that crashes when imported."
                ) from None
            if "failed" in said:
                self.close()
                raise RewardError(said["failed"])
            self._shapes = said["shapes"]
            self._idle = True
        return self._shapes

    def ask(self, groups: Sequence[RewardInput], calls: Sequence[Call], step: int) -> None:
        """Send groups and the calls to make on them. Raises RewardError where loading failed, Ended."""
        self.shapes()
        os.pwrite(self._place.fileno(), bytes(4), 0)
        self._idle, self._awaited = False, len(calls)
        self._send({"groups": groups, "calls": calls, "step": step})

    def answer(self, timeout: float) -> Answer:
        """The answer of the next call. Raises TooLate or Ended, which know the running call.

        Calls before the running one may be lost with it: answers are sent every few milliseconds.
        """
        answer = self._receive(timeout)
        self._awaited -= 1
        self._idle = not self._awaited
        return answer  # type: ignore[return-value]

    def kill(self) -> None:
        """End the process and all it started. From any thread; who waits for an answer gets `Ended`."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def close(self) -> None:
        """End the process, by itself where it is idle, and give everything back.

        Only from the thread that asks, or when nobody does.
        """
        if self._closed:
            return
        self._closed = True
        os.close(self._request)  # an idle process sees this, lets its rewards finish and ends
        if self._idle:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_FINISH_WAIT)
        self.kill()
        self._selector.close()
        os.close(self._answer)
        os.close(self._trace)
        self._place.close()
        self._folder.cleanup()

    def _send(self, message: Any) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._request, data) :]
        except OSError:
            raise self._ended() from None

    def _receive(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            data = os.read(self._answer, 1 << 20) if ready else None
            if data is None:
                where, running = self._where(), self._running()
                self.close()
                raise TooLate(running, where)
            if not data:
                raise self._ended()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        message: dict[str, Any] = json.loads(line)
        return message

    def _where(self) -> tuple[str, int] | None:
        """Ask the hanging process, by signal, which line of a reward it is at."""
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
                    if frame["path"] in self._paths:
                        return frame["path"], int(frame["line"])
        return None

    def _ended(self) -> Ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)  # the pipe closes a moment before the process is gone
        code, running = self._popen.poll(), self._running()
        self.close()
        if code is None:
            return Ended(running, "it closed its pipes")
        return Ended(running, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _running(self) -> int:
        return int.from_bytes(os.pread(self._place.fileno(), 4, 0), "little")
