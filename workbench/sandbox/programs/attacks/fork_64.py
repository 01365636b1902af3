"""Fork 64 times; one would do."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for _ in range(64):
        try:
            pid = os.fork()
        except OSError:
            continue
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return True
    return False
