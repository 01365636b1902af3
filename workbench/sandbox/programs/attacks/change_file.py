"""Overwrite, cut, delete, or move away a file outside."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    path = target["victim_file"]
    acts: list[Callable[[], object]] = [
        lambda: Path(path).write_text("changed"),
        lambda: os.open(path, os.O_WRONLY | os.O_APPEND),
        lambda: os.truncate(path, 0),
        lambda: os.unlink(path),
        lambda: os.rename(path, "here"),
    ]
    for act in acts:
        try:
            act()
            return True
        except OSError:
            continue
    return False
