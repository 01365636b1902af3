"""Write 200 MB into files that have no name any more."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    kept = []
    for number in range(50):
        file = open(f"file-{number}", "wb")  # noqa: SIM115
        os.unlink(f"file-{number}")
        file.write(bytes(4 << 20))
        kept.append(file)
    return True
