"""A seccomp filter as a BPF program: the calls of `syscalls.py`; everything else fails with EPERM.

In: the job's pid and the machine's name. Out: the bytes of the program, and `install`, which puts it on the
calling process for good. Landlock decides about paths; this decides about everything that Landlock cannot see
(fork, exec, sockets, signals, ptrace, mounts, modes and owners of files, limits).
"""

import ctypes
import errno
import functools
import os
import socket
import struct
from typing import NamedTuple

from . import syscalls

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {"x86_64": syscalls.X86_64, "aarch64": syscalls.AARCH64}

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
DENY = 0x00050000 | errno.EPERM
ABSENT = 0x00050000 | errno.ENOSYS

LOAD, AND, RETURN = 0x20, 0x54, 0x06
JUMP_IF_EQUAL, JUMP_IF_ABOVE, JUMP_IF_AT_LEAST = 0x15, 0x25, 0x35
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
ANY_BIT = 0xFFFFFFFF

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
CLONE_THREAD, CLONE_NEW_NAMESPACES = 0x00010000, 0x7E020000
# dup, get and set flags, locks, dup-cloexec, pipe size; never F_SETOWN or F_SETSIG, which send signals
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)

_libc = ctypes.CDLL(None, use_errno=True)


class Check(NamedTuple):
    """One 32-bit half of an argument, masked, must be one of `values`."""

    argument: int
    values: tuple[int, ...]
    mask: int = ANY_BIT
    high: bool = False


def checked_calls(pid: int) -> dict[str, tuple[Check, ...]]:
    """The calls whose arguments decide. Ids and commands are C ints: the kernel reads the low half."""
    stream = int(socket.SOCK_STREAM)
    return {
        # A thread yes, a process or a namespace never.
        "clone": (Check(0, (CLONE_THREAD,), mask=CLONE_THREAD | CLONE_NEW_NAMESPACES),),
        "kill": (Check(0, (pid,)),),
        "tgkill": (Check(0, (pid,)),),
        "ioctl": (Check(1, IOCTL),),
        "fcntl": (Check(1, FCNTL),),
        # Reading its own limits is fine: no new value may come with the call. The pointer has two halves.
        "prlimit64": (Check(0, (0,)), Check(2, (0,)), Check(2, (0,), high=True)),
        # A stream pair is connected to itself for life; a datagram pair could still send to any address.
        "socketpair": (Check(0, (int(socket.AF_UNIX),)), Check(1, (stream,), mask=0xF)),
    }


def program(machine: str, pid: int) -> bytes:
    """The filter for one job as `struct sock_filter[]`. KeyError for a machine without a table."""
    numbers = NUMBERS[machine]
    code = [
        _op(LOAD, ARCH_AT),
        _op(JUMP_IF_EQUAL, AUDIT_ARCH[machine], skip_if_true=1),
        _op(RETURN, KILL_PROCESS),  # another architecture's call: its numbers would mean other calls
        _op(LOAD, NUMBER_AT),
    ]
    # Its flags lie in memory, where a filter cannot look. ENOSYS makes the C library fall back to clone.
    code += _when(numbers["clone3"], [_op(RETURN, ABSENT)])
    for name, checks in checked_calls(pid).items():
        code += _when(
            numbers[name], [op for check in checks for op in _require(check)] + [_op(RETURN, ALLOW)]
        )
    return b"".join(code) + plain_part(machine)


@functools.cache
def plain_part(machine: str) -> bytes:
    """The end of the filter, the same for every job: the calls that need no look at their arguments.

    A binary search, because the kernel tries a new filter on every call number there is: as a list of
    comparisons it would cost each job a millisecond more.
    """
    numbers = NUMBERS[machine]
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers[name] for name in syscalls.ALLOWED if name in numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return b"".join(_search(ranges))


def _search(ranges: list[tuple[int, int]]) -> list[bytes]:
    """Allow a number inside one of the ranges, deny every other."""
    if len(ranges) == 1:
        low, high = ranges[0]
        return [
            _op(JUMP_IF_AT_LEAST, low, skip_if_false=2),
            _op(JUMP_IF_ABOVE, high, skip_if_true=1),
            _op(RETURN, ALLOW),
            _op(RETURN, DENY),
        ]
    middle = len(ranges) // 2
    below = _search(ranges[:middle])
    return [
        _op(JUMP_IF_AT_LEAST, ranges[middle][0], skip_if_true=len(below)),
        *below,
        *_search(ranges[middle:]),
    ]


def install(machine: str, pid: int) -> None:
    """Put the filter on this process; needs no_new_privs. OSError if the kernel refuses."""
    code = program(machine, pid)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    arguments = (ctypes.c_ulong(SECCOMP_MODE_FILTER), header, ctypes.c_ulong(0), ctypes.c_ulong(0))
    if _libc.prctl(PR_SET_SECCOMP, *arguments) != 0:
        code_of_error = ctypes.get_errno()
        raise OSError(code_of_error, f"seccomp: {os.strerror(code_of_error)}")


def _op(code: int, value: int, skip_if_true: int = 0, skip_if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if_true, skip_if_false, value)


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """`body` must end with a return: it may load arguments over the call's number."""
    return [_op(JUMP_IF_EQUAL, number, skip_if_false=len(body)), *body]


def _require(check: Check) -> list[bytes]:
    """Go on behind this block if the argument fits, else deny. Both machines are little-endian."""
    code = [_op(LOAD, ARGUMENTS_AT + 8 * check.argument + 4 * check.high)]
    if check.mask != ANY_BIT:
        code.append(_op(AND, check.mask))
    for left, value in zip(range(len(check.values), 0, -1), check.values, strict=True):
        code.append(_op(JUMP_IF_EQUAL, value, skip_if_true=left))  # over the values left and the deny
    return [*code, _op(RETURN, DENY)]
