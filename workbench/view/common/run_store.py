"""The runs root as the pages see it: which runs there are, how they do, and what they recorded.

In: ids that came over the network. Out: folders, states, readers, verdicts. The folders are the truth; what
was read of a record once is not read again.
"""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from workbench import launch
from workbench.core.errors import RunError
from workbench.diagnose import verdict as verdicts
from workbench.launch import RunState
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

NAMES = ("reward", "heldout/sampled/accuracy", "heldout/greedy/accuracy")
REMEMBERED = 64
"""Runs whose few series are kept."""


class RunStore:
    """All runs below one root. Safe to use from several threads."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

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

    def series(self, reader: Reader) -> dict[str, Any]:
        """The few series that lists and verdicts need, as `Reader.series` gives them; only what is new is
        read."""
        with self._lock:
            known = self._known.setdefault(reader.folder.id, {"cursor": 0})
            new = reader.series(known["cursor"], names=NAMES)
            if new["forget_from"] is not None:  # a resume has overtaken what we know
                new, known = reader.series(names=NAMES), {}
                self._known[reader.folder.id] = known
            for part in ("train", "sampled", "greedy"):
                for name, values in new[part].items():
                    known.setdefault(part, {}).setdefault(name, []).extend(values)
            known["cursor"] = new["cursor"]
            self._known.move_to_end(reader.folder.id)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return known

    def verdict(self, reader: Reader, state: RunState) -> dict[str, str]:
        """The run in a sentence, with the facts behind it."""
        said = verdicts.of_run(reader, state.state, state.reason)
        return {"state": said.word, "level": said.level, "sentence": said.sentence, "facts": said.facts}

    @staticmethod
    def _trains(folder: RunFolder) -> bool:
        try:
            return bool(folder.about().get("kind", "train") == "train")
        except RunError:
            return True
