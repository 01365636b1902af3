"""List the home folder and the root of the file system."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    for folder in ("/", "/root", "/home", target["folder"], os.path.expanduser("~")):
        try:
            os.listdir(folder)
            return True
        except OSError:
            continue
    return False
