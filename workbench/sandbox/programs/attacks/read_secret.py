"""Read a secret file by its path, and through a symbolic and a hard link to it."""

import os
from typing import Any


def attack(target: dict[str, Any]) -> bool:
    path = target["secret_file"]
    for make in (None, os.symlink, os.link):
        try:
            if make:
                make(path, "link")
            with open("link" if make else path) as file:
                return bool(file.read())
        except OSError:
            continue
    return False
