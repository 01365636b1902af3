"""Leave the process group and live on in the background (for 5 seconds at most)."""

import os
import time
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        pid = os.fork()
    except OSError:
        try:
            os.setsid()
            return True
        except OSError:
            return False
    if pid == 0:
        os.setsid()
        os.closerange(0, 3)
        time.sleep(5)
        os._exit(0)
    return True
