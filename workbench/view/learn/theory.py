"""The theory page's figures: made in a process of their own, kept beside the runs until the code that they check changes."""

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
def _lines() -> dict[str, Any]:
    """What the pictures show before anything was checked: the closed forms alone."""
    return {
        "panels": theory_check.PANELS,
        "curves": [curve._asdict() for curve in theory_check.picture(())],
        "beta_range": theory_check.SHOWN_BETA,
    }


class TheoryCheck:
    """The newest check, and the one that is being made."""

    def __init__(self, root: Path) -> None:
        self.path = root / STATE_FOLDER / "theory.json"
        self._making: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def answer(self) -> dict[str, Any]:
        """`state`: none, running, failed, done, or old (made by another version of the code); with what was found last."""
        with self._lock:
            code = None if self._making is None else self._making.poll()
            running = self._making is not None and code is None
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
            **_lines(),
            **{name: found[name] for name in found if name != "panels"},
        }

    def start(self) -> dict[str, Any]:
        """Begin a check unless one is under way. Raises RunError where none can be started."""
        with self._lock:
            if self._making is None or self._making.poll() is not None:
                try:
                    self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._making = subprocess.Popen(
                        [*COMMAND, str(self.path)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        env={**os.environ, **thread_variables(1)},
                    )
                except OSError as error:
                    raise RunError(
                        f"The check could not be started: {error.strerror or error}. `workbench doctor --theory` makes the same one."
                    ) from error
        return self.answer()
