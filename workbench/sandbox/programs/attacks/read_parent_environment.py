"""Read the environment of the process that started this one, and of the trainer."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for pid in (os.getppid(), target["parent_pid"]):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                file.read()
            return True
        except OSError:
            continue
    return False
