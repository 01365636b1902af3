"""Spin for 20 seconds and ignore every signal."""

import signal
import time
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for number in range(1, 32):
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            continue
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass
    return True
