"""What a place must do to run workers. Every place fills the same run folder, so readers need not know which one it was.

In: a run folder. Out: a worker process that fills it, its state, its end, its log.
"""

from collections.abc import Sequence
from typing import Protocol

from workbench.launch.watch import RunState
from workbench.record.folder import RunFolder


class Place(Protocol):
    """Where workers run: this machine, or a scheduler's cluster."""

    def submit(
        self,
        folder: RunFolder,
        *,
        step: int = 0,
        earlier: float = 0.0,
        worker: Sequence[str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Start a worker on the folder in place of one that is gone. `step`: how far the run is; `earlier`: seconds that earlier
        workers took; `worker`: another command than the package's own; `options`: more arguments for it. Raises OSError where
        nothing could be started."""

    def state(self, folder: RunFolder) -> RunState:
        """The state of a run. Never raises for a damaged folder."""

    def stop(
        self, folder: RunFolder, grace: float | None = None, *, wait: bool = True, kill_after: float = 20.0
    ) -> RunState:
        """Ask for a stop at the next step boundary; after `grace` seconds (None: twice the usual step and a minute) ask the
        process to end, and kill it after `kill_after` more."""

    def logs(self, folder: RunFolder, lines: int = 40) -> list[str]:
        """The last lines that the worker wrote."""
