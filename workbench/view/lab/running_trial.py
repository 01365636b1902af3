"""A trial while it goes on: in a thread of its own, told to the page line by line, ended at once when the page turns away.

In: a trial's pieces. Out: lines of JSON. Whoever waits for a reward that sleeps or hangs cannot be interrupted; its processes can.
"""

import contextlib
import json
import queue
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import Any

from anyio import to_thread

from workbench.core.errors import RewardError
from workbench.rewards.runtime.process_cache import LoadedRewards
from workbench.view.lab import trial_json
from workbench.view.lab.trials import Trials, TryBody

LOOK = 0.2
"""Seconds between two looks whether the page is still there."""


class RunningTrial:
    """One trial that somebody may end."""

    def __init__(self, trials: Trials, body: TryBody) -> None:
        self._trials = trials
        self._body = body
        self._told: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._ready: LoadedRewards | None = None
        threading.Thread(target=self._work, name="reward-trial", daemon=True).start()

    async def lines(self) -> AsyncIterator[bytes]:
        """What there is to say, as it comes."""
        try:
            while True:
                try:
                    piece = await to_thread.run_sync(self._told.get, True, LOOK)
                except queue.Empty:
                    continue
                if piece is None:
                    return
                yield json.dumps(piece, allow_nan=False).encode() + b"\n"
        finally:
            threading.Thread(target=self.stop, name="reward-stop", daemon=True).start()

    def stop(self) -> None:
        """End it, and the processes it waits for."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._ready is not None:
            self._trials.process_cache.discard(self._ready)

    def _hold(self, ready: LoadedRewards | None) -> None:
        """The processes that are scoring for it now; None once they are done."""
        self._ready = ready
        if ready is not None and self._stopped.is_set():
            self._trials.process_cache.discard(ready)

    def _work(self) -> None:
        try:
            with contextlib.closing(self._trials.run(self._body, self._hold)) as pieces:
                for piece in pieces:
                    if self._stopped.is_set():
                        return
                    self._told.put(piece)
        except CancelledError:
            self._told.put(
                trial_json.refused(RewardError("The trial was ended by another one. Run it again."))
            )
        except Exception:  # the border of a thread: the page must not wait for ever
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            self._told.put(
                trial_json.refused(
                    RewardError("The lab failed on this; its terminal says why. Nothing is lost.")
                )
            )
        finally:
            self._told.put(None)
