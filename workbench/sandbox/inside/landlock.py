"""Landlock: from now on this process reaches only the named paths, no TCP port, and no process outside.

In: (path, rights) pairs. Out: nothing; the restriction is for good, for all threads and children, and further
calls can only narrow it. Source: the kernel's Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = READ_FILE | READ_DIR
WORK = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
"""What a job may do in its own folder: ordinary files and folders; no links, sockets or devices."""

FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
NET_RIGHTS = 0b11  # bind and connect TCP
SCOPES = 0b11  # abstract unix sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's Landlock version, 0 where it has none, it is switched off, or a container forbids it."""
    version = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(CREATE_RULESET_VERSION))
    return max(0, int(version))


def handled(version: int) -> int:
    """Every file right that this version can forbid."""
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    return int((1 << bits) - 1)


def restrict(rules: Iterable[tuple[str, int]], isolate: bool = True) -> None:
    """Forbid all paths but the named ones; with `isolate` also signals and abstract sockets to outside.

    Paths that do not exist are passed over. Needs no_new_privs. OSError if the kernel refuses.
    """
    version = abi()
    if version < 1:
        raise OSError("this kernel has no Landlock")
    rights = handled(version)
    attributes = struct.pack("@Q", rights)
    if version >= 4:
        attributes += struct.pack("@Q", NET_RIGHTS)
    if version >= 6:
        attributes += struct.pack("@Q", SCOPES if isolate else 0)
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path, wanted in rules:
            _allow(ruleset, path, wanted & rights)
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, wanted: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            wanted &= FILE_RIGHTS
        rule = struct.pack("=Qi", wanted, descriptor)
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(RULE_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result
