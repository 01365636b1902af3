"""Open a TCP connection."""

import socket
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        socket.create_connection(("127.0.0.1", target["tcp_port"]), 2).close()
        return True
    except OSError:
        return False
