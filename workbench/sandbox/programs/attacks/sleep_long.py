"""Sleep for 20 seconds: no processor time is used."""

import time
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    time.sleep(20)
    return True
