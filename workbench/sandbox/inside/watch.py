"""Counts what no rlimit counts: a job's threads, and the files and bytes it has written.

Called by the fork-server every 25 ms while a job runs: a job can pass a limit by what it does in that time.
"""

import os
import stat

from . import guard

LONGEST_PATH = 2000
"""A folder nested deeper could hide files from the count, so it counts as too much."""


def threads(pid: int) -> int:
    """How many threads the job has; 0 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def disk_is_within(pid: int, work: str, caps: guard.Caps) -> bool:
    """Whether the job's files are within its limits, unlinked ones that are still open included."""
    sizes: dict[tuple[int, int], int] = {}
    folders = [work]
    while folders and len(sizes) <= caps.files:
        folder = folders.pop()
        if len(folder) > LONGEST_PATH:
            return False
        for entry in _scan(folder):
            if _measure(entry.path, sizes, follow=False):
                folders.append(entry.path)
    open_files = f"/proc/{pid}/fd"
    for entry in _scan(open_files):
        _measure(entry.path, sizes, follow=True)
    return len(sizes) <= caps.files and sum(sizes.values()) <= caps.disk_mb * guard.MIB


def _scan(folder: str) -> list[os.DirEntry[str]]:
    for mode in (None, 0o700):  # a job may make a folder that it can fill and that cannot be listed
        try:
            if mode:
                os.chmod(folder, mode)
            return list(os.scandir(folder))
        except OSError:
            continue
    return []


def _measure(path: str, sizes: dict[tuple[int, int], int], follow: bool) -> bool:
    """Note its size under its inode; whether it is a folder."""
    try:
        found = os.stat(path, follow_symlinks=follow)
    except OSError:
        return False  # it went away meanwhile
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return stat.S_ISDIR(found.st_mode)
