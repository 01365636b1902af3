"""Start another program: as a child in two ways, then in place of this process."""

import os
import subprocess
from collections.abc import Callable
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    acts: list[Callable[[], object]] = [
        lambda: subprocess.run(["/bin/sh", "-c", "true"], check=True),
        lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}),
    ]
    for act in acts:
        try:
            act()
            return True
        except OSError:
            continue
    try:
        os.execv("/bin/true", ["true"])
    except OSError:
        return False
