"""Become root in a namespace of its own."""

import ctypes
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(0x10000000) == 0 or libc.unshare(0x00020000) == 0)  # CLONE_NEWUSER, CLONE_NEWNS
