"""Take 10 GB at once (and never touch it)."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    block = bytes(10 << 30)
    return len(block) > 0
