"""The runs root as the pages see it: which runs there are, how they do, and what they recorded.

In: ids that came over the network. Out: folders, states, readers. The folders are the truth; only what was read from a record that has
not changed since is remembered.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench import launch
from workbench.errors import RunError
from workbench.launch import RunState
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader


class Store:
    """All runs below one root. Safe to use from several threads."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        self._known: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}

    def empty(self) -> bool:
        """Whether there is no training run to look at."""
        return not any(self._trains(folder) for folder in record.folders(self.root))

    def states(self) -> list[RunState]:
        """All training runs, newest first."""
        return [launch.state(folder) for folder in record.folders(self.root) if self._trains(folder)]

    def folder(self, run: str) -> RunFolder:
        """The folder of a run id. Raises RunError for anything that is not the id of a run below the root."""
        return record.find_id(run, self.root)

    def reader(self, run: str) -> Reader:
        """What the run recorded; simply empty before its first step. Raises RunError as `folder` does."""
        return Reader(self.folder(run))

    def remembered(self, folder: RunFolder, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `read` says of a run's record; asked again only once the record has changed. One value a run."""
        stamp = _stamp(folder.db_path)
        known = self._known.get(folder.id)
        if known is None or known[0] != stamp:
            known = self._known[folder.id] = stamp, read()
        return known[1]

    @staticmethod
    def _trains(folder: RunFolder) -> bool:
        try:
            return folder.about().get("kind", "train") == "train"
        except RunError:
            return True


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes whenever the database does: its file, or the log of changes beside it."""
    found: list[int] = []
    for part in (path, path.with_name(path.name + "-wal")):
        try:
            status = part.stat()
        except FileNotFoundError:
            continue
        found += [status.st_ino, status.st_size, status.st_mtime_ns]
    return tuple(found)
