"""Stop dying with the fork-server: clear the parent-death signal."""

import ctypes
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    return bool(libc.prctl(1, zero, zero, zero, zero) == 0)
