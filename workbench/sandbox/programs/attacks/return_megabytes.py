"""Return more than any answer needs."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    return "x" * (5 << 20)  # type: ignore[return-value]
