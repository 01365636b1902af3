"""Create 20,000 files."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for number in range(20_000):
        open(f"file-{number}", "w").close()
    return True
