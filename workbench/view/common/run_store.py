"""The runs root as the pages see it: its run folders, their states, readers and verdicts.

In: run ids from requests. Out: folders, states, readers, verdicts. Nothing is stored here but a cache of what was read of a record.
"""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from workbench import launch
from workbench.core.errors import RunError
from workbench.diagnose import verdict
from workbench.launch import RunState
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

METRICS = ("reward", "heldout/sampled/accuracy", "heldout/greedy/accuracy")
"""The metrics that the list of runs draws."""
CACHED_RUNS = 64
"""Runs whose METRICS are cached."""


class RunStore:
    """All runs below one root. Safe to use from several threads."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().absolute()
        self._series: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def empty(self) -> bool:
        """Whether there is no training run."""
        return not any(self._is_training_run(folder) for folder in record.folders(self.root))

    def states(self) -> list[RunState]:
        """The states of all training runs, newest first."""
        return [launch.state(folder) for folder in record.folders(self.root) if self._is_training_run(folder)]

    def folder(self, run: str) -> RunFolder:
        """The folder of a run id. Raises RunError for anything that is not the id of a run below the root."""
        return record.find_id(run, self.root)

    def reader(self, run: str) -> Reader:
        """A reader of the run's record, which is empty before the first step. Raises RunError as `folder` does."""
        return Reader(self.folder(run))

    def series(self, reader: Reader) -> dict[str, Any]:
        """METRICS over all steps, as `Reader.series` gives them; only rows that are new since the last call are read."""
        with self._lock:
            known = self._series.setdefault(reader.folder.id, {"cursor": 0})
            new = reader.series(known["cursor"], names=METRICS)
            if new["forget_from"] is not None:  # a resumed run has recorded cached steps again
                new, known = reader.series(names=METRICS), {}
                self._series[reader.folder.id] = known
            for part in ("train", "sampled", "greedy"):
                for name, values in new[part].items():
                    known.setdefault(part, {}).setdefault(name, []).extend(values)
            known["cursor"] = new["cursor"]
            self._series.move_to_end(reader.folder.id)
            while len(self._series) > CACHED_RUNS:
                self._series.popitem(last=False)
            return known

    def verdict(self, reader: Reader, state: RunState) -> dict[str, str]:
        """The run in one sentence, with the facts behind it."""
        found = verdict.of_run(reader, state.state, state.reason)
        return {"state": found.word, "level": found.level, "sentence": found.sentence, "facts": found.facts}

    @staticmethod
    def _is_training_run(folder: RunFolder) -> bool:
        """Whether the folder is a training run; one that cannot be read is listed with them."""
        try:
            return bool(folder.about().get("kind", "train") == "train")
        except RunError:
            return True
