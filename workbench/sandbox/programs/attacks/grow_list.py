"""Grow a list to 2 GB."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    kept: list[bytes] = []
    while len(kept) < 128:
        kept.append(bytes(16 << 20))
    return True
