"""Keep memory where no limit on addresses counts it: memory files and shared segments."""

import ctypes
import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        os.memfd_create("x")
        return True
    except OSError:
        pass
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(0, ctypes.c_size_t(4096), 0o1600)
    if segment < 0:
        return False
    libc.shmctl(segment, 0, None)  # take it away again
    return True
