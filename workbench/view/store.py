"""The runs root as the pages see it: which runs there are, how they do, and what they recorded.

In: ids that came over the network. Out: folders, states, readers. Nothing is cached: the folders are the truth.
"""

from pathlib import Path

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

    @staticmethod
    def _trains(folder: RunFolder) -> bool:
        try:
            return folder.about().get("kind", "train") == "train"
        except RunError:
            return True
