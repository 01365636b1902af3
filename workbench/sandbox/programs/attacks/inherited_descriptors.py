"""Read a file or use a socket that an ancestor left open."""

import os
import stat
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for descriptor in range(3, 1024):
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode) or stat.S_ISSOCK(mode) or stat.S_ISDIR(mode):
                return True
        except OSError:
            continue
    return False
