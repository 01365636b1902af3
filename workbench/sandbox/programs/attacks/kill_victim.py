"""Kill another process of the same user."""

import ctypes
import os
from typing import Any

TGKILL = {"x86_64": 234, "aarch64": 131}.get(os.uname().machine, -1)


def attack(target: dict[str, Any]) -> bool:
    try:
        os.kill(target["victim_pid"], 9)
        return True
    except OSError:
        pass
    libc = ctypes.CDLL(None, use_errno=True)
    pid = target["victim_pid"]
    return bool(libc.syscall(TGKILL, pid, pid, 9) == 0)
