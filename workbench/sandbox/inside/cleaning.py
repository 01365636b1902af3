"""Removes a folder that untrusted code has filled: however deep, whatever the names, following no link.

The library's `shutil.rmtree` recurses once a level, and a program makes thousands of levels in a second. Here
every inner folder is first moved to the top, so no path is ever longer than two names. Nothing may run in the
folder any more.
"""

import os
import stat


def remove(folder: str) -> None:
    """Remove `folder` with everything in it. What cannot be removed stays, without an error."""
    root = os.fsencode(folder)
    moved = 0
    while names := _names(root):
        progress = False
        for name in names:
            path = os.path.join(root, name)
            if not _is_folder(path):
                progress |= _attempt(os.unlink, path)
                continue
            _attempt(os.chmod, path, 0o700)
            for inner in _names(path):
                inside = os.path.join(path, inner)
                if _is_folder(inside):
                    moved += 1
                    _attempt(
                        os.chmod, inside, 0o700
                    )  # a folder without write permission cannot change its parent
                    progress |= _attempt(os.rename, inside, os.path.join(root, b".moved-%d" % moved))
                else:
                    progress |= _attempt(os.unlink, inside)
            progress |= _attempt(os.rmdir, path)
        if not progress:
            break
    _attempt(os.rmdir, root)


def _names(folder: bytes) -> list[bytes]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_folder(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _attempt(action, *arguments) -> bool:  # type: ignore[no-untyped-def]
    try:
        action(*arguments)
    except OSError:
        return False
    return True
