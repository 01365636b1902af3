"""Look up a host name."""

import socket
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        return bool(socket.getaddrinfo("localhost", 80))
    except OSError:
        return False
