"""Read the machine's list of users."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        with open("/etc/passwd") as file:
            return bool(file.read())
    except OSError:
        return False
