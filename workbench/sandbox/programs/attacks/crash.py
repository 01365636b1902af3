"""Read address zero."""

import ctypes
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    return bool(ctypes.string_at(0))
