"""Attach to another process as a debugger."""

import ctypes
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    pid = target["victim_pid"]
    if libc.ptrace(16, pid, None, None) != 0:  # PTRACE_ATTACH
        return False
    libc.ptrace(17, pid, None, None)  # PTRACE_DETACH
    return True
