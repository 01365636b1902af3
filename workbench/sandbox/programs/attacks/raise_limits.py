"""Lift the limits again."""

import resource
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        hard = resource.getrlimit(what)[1]
        for wanted in (resource.RLIM_INFINITY, hard + 4096):
            try:
                resource.setrlimit(what, (wanted, wanted))
                return True
            except (OSError, ValueError):
                continue
    return False
