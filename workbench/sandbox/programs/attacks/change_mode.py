"""Change mode, times, or owner of a file outside: path rules alone do not forbid it to the file's owner."""

import os
from collections.abc import Callable
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    path = target["victim_file"]
    acts: list[Callable[[], object]] = [
        lambda: os.chmod(path, 0o777),
        lambda: os.utime(path, (1, 1)),
        lambda: os.chown(path, os.getuid(), os.getgid()),
        lambda: os.setxattr(path, "user.x", b"1"),
    ]
    for act in acts:
        try:
            act()
            return True
        except OSError:
            continue
    return False
