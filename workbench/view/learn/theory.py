"""Figures of the Theory page: computed in a process of their own, saved below the runs root until the code that they check changes."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from workbench.core.errors import RunError
from workbench.diagnose import theory_check
from workbench.launch.local import thread_variables
from workbench.record.files import STATE_FOLDER

COMMAND = (sys.executable, "-P", "-m", "workbench.diagnose.theory_check")


@functools.cache
def _closed_forms() -> dict[str, Any]:
    """What the plots show before the first check: the closed forms."""
    return {
        "panels": theory_check.PANELS,
        "curves": [curve._asdict() for curve in theory_check.curves(())],
        "beta_range": theory_check.SHOWN_BETA,
    }


class TheoryCheck:
    """The newest check, and the one that is running."""

    def __init__(self, root: Path) -> None:
        self.path = root / STATE_FOLDER / "theory.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def status(self) -> dict[str, Any]:
        """`state`: none, running, failed, done, or old (made by another version of the code); with the last result."""
        with self._lock:
            code = None if self._process is None else self._process.poll()
            running = self._process is not None and code is None
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.path.read_bytes())
        if running:
            state = "running"
        elif code:
            state = "failed"
        elif not found:
            state = "none"
        else:
            state = "done" if found.get("stamp") == theory_check.stamp() else "old"
        return {
            "state": state,
            **_closed_forms(),
            **{name: found[name] for name in found if name != "panels"},
        }

    def start(self) -> dict[str, Any]:
        """Start a check unless one is running. Raises RunError where none can be started."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                try:
                    self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._process = subprocess.Popen(
                        [*COMMAND, str(self.path)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        env={**os.environ, **thread_variables(1)},
                    )
                except OSError as error:
                    raise RunError(
                        f"The check could not be started: {error.strerror or error}. `workbench doctor --theory` makes the same one."
                    ) from error
        return self.status()
