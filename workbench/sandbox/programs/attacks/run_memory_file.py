"""Run a program from memory, where no path rule reaches."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        descriptor = os.memfd_create("x")
        with open("/bin/true", "rb") as program:
            os.write(descriptor, program.read())
        pid = os.fork()
        if pid == 0:
            os.execve(descriptor, ["true"], {})
        return os.waitpid(pid, 0)[1] == 0
    except OSError:
        return False
