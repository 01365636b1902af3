"""Send a datagram."""

import socket
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", target["udp_port"]))
        return True
    except OSError:
        return False
