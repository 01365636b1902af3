"""Times the phases of a step and shows in status.json which one is going on."""

import time
from collections.abc import Callable

from workbench.record.control import Control


class Clock:
    """One phase at a time; `lap` takes what was measured so far."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._seconds: dict[str, float] = {}
        self._name, self._since = "", time.perf_counter()

    def phase(self, name: str) -> Callable[[int, int], None]:
        """A phase begins and the one before ends; returns what takes its progress (done, total)."""
        self._end_phase()
        self._name = name
        self._control.phase(name)
        return lambda done, total: self._control.phase(name, done, total)

    def lap(self) -> dict[str, float]:
        """Seconds of each phase since the last lap."""
        self._end_phase()
        seconds, self._seconds, self._name = self._seconds, {}, ""
        return seconds

    def _end_phase(self) -> None:
        now = time.perf_counter()
        if self._name:
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + now - self._since
        self._since = now
