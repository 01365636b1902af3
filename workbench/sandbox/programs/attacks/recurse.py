"""Recurse without end, with the interpreter's own limit lifted."""

import sys
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    sys.setrecursionlimit(10**9)

    def deeper(value: object) -> object:
        return [deeper((value,))]

    return deeper(()) is None
