"""A reward process: `python -P -m workbench.rewards.runtime.child REQUEST_FD RESULT_FD TRACE_FD CALL_FD`.

In and out: the messages of `messages.py`. Results are written a few milliseconds late at most; the number of the running call
stands in the file CALL_FD all the time, so that the parent knows which one hung or ended the process. What user code prints
goes to no descriptor of the protocol. A signal makes the process write its stack to TRACE_FD, even inside C code that never
returns.
"""

import contextlib
import faulthandler
import io
import os
import signal
import sys
import time
from typing import NoReturn

from workbench.rewards.api import decorator
from workbench.rewards.api.importing import LoadError
from workbench.rewards.runtime.messages import (
    CallResult,
    CallResults,
    Load,
    LoadFailed,
    RewardsLoaded,
    ScoreRequest,
    decode,
    encode,
)
from workbench.rewards.runtime.runner import Runner

ENVIRONMENT = "WORKBENCH_REWARD_PROCESS"
"""Set in reward processes: reward code that starts runs of its own is refused."""
_GRACE = 60.0
_PRINTED = 2000
_FLUSH_AFTER = 0.002
"""Seconds; a write for every call would wake the parent each time, which costs more than most calls."""


class Tail(io.TextIOBase):
    """A stream that keeps the last characters printed to it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._text = ""

    def write(self, text: str) -> int:
        self._text = (self._text + text[-self._size :])[-self._size :]
        return len(text)

    def writable(self) -> bool:
        return True

    def take(self) -> str:
        """What is kept, once."""
        text, self._text = self._text, ""
        return text


def main(request_fd: int, result_fd: int, trace_fd: int, call_fd: int) -> NoReturn:
    """Serve until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent
    faulthandler.register(signal.SIGUSR1, file=trace_fd, all_threads=False)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, the kernel kills this process first, not the training
    # `@wb.reward` finds the decorator itself: looked up, it would load everything that a notebook can use.
    vars(sys.modules["workbench"])["reward"] = decorator.reward
    printed = Tail(_PRINTED)
    sys.stdout = sys.stderr = printed
    requests = map(decode, open(request_fd, "rb"))  # noqa: SIM115 - closed with the process
    load = next(requests, None)
    if not isinstance(load, Load):
        _exit()
    try:
        runners = [Runner(code, load.facts) for code in load.rewards]
    except LoadError as error:
        _write(result_fd, encode(LoadFailed(str(error))))
        _exit()
    _write(result_fd, encode(RewardsLoaded([runner.shape for runner in runners])))
    for request in requests:
        assert isinstance(request, ScoreRequest)
        # If the parent is gone and a call never ends, nothing else ends this process.
        watchdog = _GRACE + load.facts.timeout * len(request.calls)
        faulthandler.dump_traceback_later(watchdog, exit=True, file=trace_fd)
        results: list[CallResult] = []
        flushed = time.perf_counter()
        for number, call in enumerate(request.calls):
            os.pwrite(call_fd, number.to_bytes(4, "little"), 0)
            result = runners[call.reward].call(request.groups[call.group], call.sample, request.step)
            text = printed.take()
            results.append(result._replace(printed=text) if text else result)
            if time.perf_counter() - flushed > _FLUSH_AFTER:
                _write(result_fd, encode(CallResults(results)))
                results.clear()
                flushed = time.perf_counter()
        if results:
            _write(result_fd, encode(CallResults(results)))
        faulthandler.cancel_dump_traceback_later()
    for runner in runners:
        runner.finish()
    _exit()


def _exit() -> NoReturn:
    """End at once, whatever threads a reward left behind; a parent that was killed cannot clean up after us."""
    with contextlib.suppress(OSError, KeyError):
        os.rmdir(os.environ["TMPDIR"])
    os._exit(0)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
