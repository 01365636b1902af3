"""Find anything at all in the environment: tokens travel there."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    if os.environ:
        return True
    try:
        with open("/proc/self/environ", "rb") as file:
            return bool(file.read())
    except OSError:
        return False
