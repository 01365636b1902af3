"""End the process with success before any answer was given."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    os._exit(0)
