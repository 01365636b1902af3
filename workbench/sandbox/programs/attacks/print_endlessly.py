"""Print 64 MB."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for _ in range(1024):
        print("x" * 65536)
    return True
