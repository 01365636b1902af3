"""Start 1000 threads."""

import threading
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    threading.stack_size(65536)
    gate = threading.Event()
    started = 0
    try:
        while started < 1000:
            threading.Thread(target=gate.wait, args=(20,), daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    gate.set()
    return started == 1000
