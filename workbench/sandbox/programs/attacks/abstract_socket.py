"""Reach a Unix socket that has no path: by connecting, and by sending from a datagram pair."""

import socket
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    address = "\0" + target["abstract_name"]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", address)
        return True
    except OSError:
        pass
    try:
        one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b"x", address)
        return True
    except OSError:
        return False
