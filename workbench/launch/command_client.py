"""Asks a living run something and waits for its answer, which stands in the run's events."""

import time
from collections.abc import Mapping
from typing import Any

from workbench.core.errors import RunError
from workbench.launch import local, watch
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

ANSWER_SECONDS = 600.0


def send_and_wait(
    folder: RunFolder, command: str, args: Mapping[str, Any] | None = None, timeout: float = ANSWER_SECONDS
) -> dict[str, Any]:
    """Send a command and return its answer: id, command, args, ok, text, and for probes result. Raises
    RunError where nobody is there, the run ends first, or time is up."""
    reader = Reader(folder)
    seen = max((event["id"] for event in reader.events(kind="command", limit=10**9)), default=0)
    identity = local.send(folder, command, args)
    deadline = time.monotonic() + timeout
    while True:
        now = watch.state(folder)
        for event in reader.events(since=seen, kind="command"):
            seen = event["id"]
            if event["data"]["id"] == identity:
                return dict(event["data"])
        if now.over:
            raise RunError(
                f"Run {folder.id} ended before it answered "
                f"{command}{f': {now.reason}' if now.reason else '.'}"
            )
        if time.monotonic() > deadline:
            raise RunError(
                f"Run {folder.id} has not answered {command} within {timeout:.0f} s; it will at its next "
                "step boundary."
            )
        time.sleep(0.1)
