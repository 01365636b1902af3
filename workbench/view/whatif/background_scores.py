"""Recorded completions scored in the background with a reward that the run never had.

In: a run and the name of a reward: of the catalogue, or path/file.py:function. Out: the values known so far, one a sample. A file that
was edited is another reward.
"""

import threading
from typing import NamedTuple

import numpy as np

from workbench.core.errors import WorkbenchError
from workbench.diagnose import rescoring
from workbench.record.arrays import Floats, SampleArrays
from workbench.record.reader import Reader
from workbench.rewards.runtime import registry

REMEMBERED = 16
"""Rewards whose values are kept; the oldest goes first."""


class ScoreProgress(NamedTuple):
    """How far the scoring of a reward has come."""

    values_B: Floats
    """In the order of the requested samples; NaN: no value, or not scored yet."""
    done: int
    """Samples scored."""
    failed: int
    """Samples whose score has no value."""
    error: str
    """Why scoring stopped; empty while all is well."""


class BackgroundScores:
    """One scoring job for each run and reward. Safe to use from several threads."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._lock = threading.Lock()

    def start(self, reader: Reader, name: str) -> None:
        """Starts to score the run's completions; does nothing where a job with this very code exists. Reward code runs only after
        this call. Raises RewardError for a reward that cannot be found."""
        key, sha = (str(reader.folder.path), name), registry.find(name).sha
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and known.sha == sha and not known.error:
                return
            if known is not None:
                known.stop()
            self._jobs[key] = _Job(reader, name, sha)
            while len(self._jobs) > REMEMBERED:
                self._jobs.pop(next(iter(self._jobs))).stop()

    def values(self, reader: Reader, samples: SampleArrays, name: str) -> ScoreProgress | None:
        """The values known by now; scores missing ones in the background. None for a reward that was not started."""
        with self._lock:
            job = self._jobs.get((str(reader.folder.path), name))
        return None if job is None else job.values(samples)


class _Job:
    def __init__(self, reader: Reader, name: str, sha: str) -> None:
        self._reader, self._name, self.sha = reader, name, sha
        self._known: dict[int, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.error = ""

    def stop(self) -> None:
        self._stopped = True

    def values(self, samples: SampleArrays) -> ScoreProgress:
        with self._lock:
            found = [self._known.get(sample) for sample in samples.id_B.tolist()]
            missing = [
                step for step, value in zip(samples.step_B.tolist(), found, strict=True) if value is None
            ]
            idle = self._thread is None or not self._thread.is_alive()
            if missing and idle and not self.error:
                self._thread = threading.Thread(target=self._score, args=(missing[0],), daemon=True)
                self._thread.start()
        values_B = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
        scored = [value for value in found if value is not None]
        return ScoreProgress(values_B, len(scored), int(np.isnan(scored).sum()) if scored else 0, self.error)

    def _score(self, since: int) -> None:
        try:
            with rescoring.prepared(self._reader, [self._name]) as sources:
                for part in rescoring.stream(self._reader, sources, since=since, workers=1):
                    if self._stopped:
                        return
                    values = [score.values[sources[0].name] for score in part.scores]
                    ids = [sample for group in part.groups for sample in group["ids"]]
                    with self._lock:
                        self._known.update(
                            (sample, np.nan if value is None else value)
                            for sample, value in zip(ids, values, strict=True)
                        )
        except WorkbenchError as error:  # no caller waits for this thread: the next `values` reports it
            self.error = str(error)
