"""Write 200 MB into the work folder."""

from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for number in range(50):
        with open(f"file-{number}", "wb") as file:
            file.write(bytes(4 << 20))
    return True
