"""A trial while it runs: in a thread of its own, streamed to the page, cancelled as soon as the page disconnects.

In: a trial's messages. Out: lines of JSON. A thread that waits for a hanging reward cannot be interrupted; the reward's processes can
be killed.
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

POLL_SECONDS = 0.2
"""Seconds between two checks whether the page is still connected."""


class RunningTrial:
    """One trial that can be cancelled."""

    def __init__(self, trials: Trials, body: TryBody) -> None:
        self._trials = trials
        self._body = body
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._ready: LoadedRewards | None = None
        threading.Thread(target=self._work, name="reward-trial", daemon=True).start()

    async def lines(self) -> AsyncIterator[bytes]:
        """The trial's messages as lines of JSON, as they come."""
        try:
            while True:
                try:
                    message = await to_thread.run_sync(self._messages.get, True, POLL_SECONDS)
                except queue.Empty:
                    continue
                if message is None:
                    return
                yield json.dumps(message, allow_nan=False).encode() + b"\n"
        finally:
            threading.Thread(target=self.stop, name="reward-stop", daemon=True).start()

    def stop(self) -> None:
        """Cancel the trial and kill the processes it waits for."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._ready is not None:
            self._trials.process_cache.discard(self._ready)

    def _track(self, ready: LoadedRewards | None) -> None:
        """Remembers the processes that are scoring now; None once they are done."""
        self._ready = ready
        if ready is not None and self._stopped.is_set():
            self._trials.process_cache.discard(ready)

    def _work(self) -> None:
        try:
            with contextlib.closing(self._trials.run(self._body, self._track)) as messages:
                for message in messages:
                    if self._stopped.is_set():
                        return
                    self._messages.put(message)
        except CancelledError:
            self._messages.put(
                trial_json.refused(RewardError("The trial was ended by another one. Run it again."))
            )
        except Exception:  # thread boundary: the page must not wait forever
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            self._messages.put(
                trial_json.refused(
                    RewardError("The lab failed on this; its terminal says why. Nothing is lost.")
                )
            )
        finally:
            self._messages.put(None)
