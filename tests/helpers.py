"""Waiting with a deadline, and workers without torch."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
FAKE_WORKER = (sys.executable, "-P", str(Path(__file__).with_name("fake_worker.py")))
"""Pass as `worker=` to launch.start: a real worker process around a loop that only counts."""


def wait_until(condition: Callable[[], T], timeout: float = 20.0, what: str = "") -> T:
    """The first true value of `condition`, looked at every 20 ms; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what or condition}"
        time.sleep(0.02)
    return value
