"""Create a file beside the secret, outside the work folder."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    try:
        with open(os.path.join(target["folder"], "written"), "w") as file:
            file.write("x")
        return True
    except OSError:
        return False
