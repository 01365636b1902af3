"""Free space on the disk of a run, and the two limits below which less is written.

Below the first limit no token arrays are kept (most of a run's bytes, and only the token view needs them), below the second
the run waits. Both are a share of a small disk, a fixed amount of a large one, and never less than the next checkpoint needs.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

from workbench.record.folder import RunFolder

TOKENS = (0.05, 2 * 2**30)
PAUSE = (0.01, 500 * 2**20)
"""Share of the disk, and at most this many bytes."""


class DiskSpace(NamedTuple):
    """Bytes of one disk."""

    free: int
    needed_for_tokens: int
    """With less free, no token arrays are kept."""
    needed_to_run: int
    """With less free, the run waits."""

    @property
    def shortage(self) -> str:
        """Why the run cannot continue, in a sentence; '' where it can."""
        if self.free >= self.needed_to_run:
            return ""
        return (
            f"The disk is nearly full: {_size(self.free)} free, and the run waits below {_size(self.needed_to_run)}. It continues by itself "
            "once there is space; delete old checkpoints or runs, or resume it as it is."
        )


def measure(folder: RunFolder) -> DiskSpace:
    """Free space and limits for the disk of a run."""
    disk = shutil.disk_usage(folder.path)
    checkpoint = _newest_checkpoint(folder.checkpoints)
    tokens, pause = (int(min(share * disk.total, most)) for share, most in (TOKENS, PAUSE))
    return DiskSpace(disk.free, max(tokens, 2 * checkpoint), max(pause, checkpoint))


def _newest_checkpoint(folder: Path) -> int:
    newest = max(folder.glob("step-*"), default=None)
    return sum(path.stat().st_size for path in newest.rglob("*") if path.is_file()) if newest else 0


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
