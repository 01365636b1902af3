"""Knock at seldom-used parts of the kernel. A door is open when the kernel even looks at the arguments."""

import ctypes
import errno
import os
from typing import Any

# io_uring_setup, bpf, perf_event_open, add_key, keyctl, userfaultfd, seccomp; on x86_64 also x32's getpid
DOORS = {
    "x86_64": [425, 321, 298, 248, 250, 323, 317, 0x40000000 + 39],
    "aarch64": [425, 280, 241, 217, 219, 282, 277],
}


def attack(target: dict[str, Any]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    one, page, zero = ctypes.c_long(1), ctypes.create_string_buffer(256), ctypes.c_long(0)
    for number in DOORS[os.uname().machine]:
        done = libc.syscall(number, one, page, zero, zero, zero)
        if done >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
            return True
    return False
