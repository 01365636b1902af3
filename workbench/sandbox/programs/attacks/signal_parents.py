"""Signal the fork-server, the trainer, and everybody (a signal that does nothing)."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for pid in (os.getppid(), target["parent_pid"]):
        try:
            os.kill(pid, 0)
            return True
        except OSError:
            continue
    return False
