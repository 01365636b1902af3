"""A reward process: `python -P -m workbench.rewards.runtime.child REQUEST_FD ANSWER_FD TRACE_FD PLACE_FD`.

In: JSON lines, first the rewards to load, then groups to score. Out: one JSON line for each call, a few
milliseconds late at most; the number of the running call stands in a file all the time, so the parent knows
which one hung or ended the process. What user code prints goes nowhere near the protocol. A signal makes the
process say where it is, even in C code that never comes back.
"""

import contextlib
import faulthandler
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from workbench.rewards.api import decorator
from workbench.rewards.api.importing import LoadError
from workbench.rewards.runtime.runner import Loaded, RunFacts

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


def main(request_fd: int, answer_fd: int, trace_fd: int, place_fd: int) -> NoReturn:
    """Serve until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent
    faulthandler.register(signal.SIGUSR1, file=trace_fd, all_threads=False)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, this process goes first, not the training
    # `@wb.reward` finds the decorator itself: looked up it would load everything that a notebook can use.
    vars(sys.modules["workbench"])["reward"] = decorator.reward
    printed = Tail(_PRINTED)
    sys.stdout = sys.stderr = printed
    requests = _lines(request_fd)
    load = next(requests, None)
    if load is None:
        _leave()
    try:
        facts = RunFacts(**load["facts"])
        rewards = [Loaded(description, facts) for description in load["rewards"]]
    except LoadError as error:
        _write(answer_fd, _line({"failed": str(error)}))
        _leave()
    _write(answer_fd, _line({"shapes": [reward.shape.to_json() for reward in rewards]}))
    for request in requests:
        calls = request["calls"]
        # If the parent is gone and a call never ends, nobody else ends this process.
        faulthandler.dump_traceback_later(_GRACE + facts.timeout * len(calls), exit=True, file=trace_fd)
        said: list[bytes] = []
        flushed = time.perf_counter()
        for number, (place, which, index) in enumerate(calls):
            os.pwrite(place_fd, number.to_bytes(4, "little"), 0)
            answer = rewards[which].call(request["groups"][place], index, request["step"])
            text = printed.take()
            said.append(_line({**answer, "printed": text} if text else answer))
            if time.perf_counter() - flushed > _FLUSH_AFTER:
                _write(answer_fd, b"".join(said))
                said.clear()
                flushed = time.perf_counter()
        _write(answer_fd, b"".join(said))
        faulthandler.cancel_dump_traceback_later()
    for reward in rewards:
        reward.finish()
    _leave()


def _leave() -> NoReturn:
    """End at once, whatever threads a reward left behind; a parent that was killed cannot tidy up after us."""
    with contextlib.suppress(OSError, KeyError):
        os.rmdir(os.environ["TMPDIR"])
    os._exit(0)


def _lines(descriptor: int) -> Iterator[dict[str, Any]]:
    with open(descriptor, "rb") as stream:
        for line in stream:
            yield json.loads(line)


def _line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
