"""List the machine's processes and what they were started with."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        return any(name.isdigit() for name in os.listdir("/proc"))
    except OSError:
        return False
