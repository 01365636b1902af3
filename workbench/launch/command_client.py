"""The client of a worker's inbox: sends a command and waits for its reply, which is an event of the run.

In: a run folder and a command. Out: the worker's state again and again while it waits, and the reply.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from workbench.core.errors import RunError
from workbench.launch import lifecycle
from workbench.launch.watch import RunState
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

REPLY_SECONDS = 600.0
"""How long to wait for a reply, the wait for the device included."""
POLL_SECONDS = 0.1

Reply = dict[str, Any]
"""id, command, args, ok, text (for people), and for probes result."""


class Update(NamedTuple):
    """Where a command stands."""

    state: RunState
    """Of the run whose worker has the command, read before the reply was looked for."""
    reply: Reply | None
    late: bool
    """Time is up."""

    @property
    def done(self) -> bool:
        """Whether waiting longer is pointless: there is a reply, or none will come in time."""
        return self.reply is not None or self.state.over or self.late


class SentCommand:
    """A command in the inbox of a run, and the wait for its reply."""

    def __init__(self, folder: RunFolder, id: str) -> None:
        self.folder = folder
        self.id = id
        self._reader = Reader(folder)
        self._seen = 0
        """Id of the newest event that was looked at."""

    def poll(self) -> Reply | None:
        """The reply; None while there is none. Reads only events that are newer than at the last call."""
        for event in self._reader.events(since=self._seen, kind="command", limit=2**31):
            self._seen = event["id"]
            if event["data"]["id"] == self.id:
                return dict(event["data"])
        return None

    def updates(self, timeout: float = REPLY_SECONDS, every: float = POLL_SECONDS) -> Iterator[Update]:
        """Where the command stands, every `every` seconds until it is `done`: the last update says how it ended."""
        deadline = time.monotonic() + timeout
        while True:
            # The state first: a reply that is recorded just before the run ends is not missed.
            state = lifecycle.state(self.folder)
            update = Update(state, self.poll(), time.monotonic() > deadline)
            yield update
            if update.done:
                return
            time.sleep(every)

    def wait(self, timeout: float = REPLY_SECONDS) -> Update:
        """The last of `updates`."""
        return next(update for update in self.updates(timeout) if update.done)


def send_and_wait(
    folder: RunFolder, command: str, args: Mapping[str, Any] | None = None, timeout: float = REPLY_SECONDS
) -> Reply:
    """Send a command and return its reply. Raises RunError where no worker runs, the run ends first, or time is up."""
    state, reply, _ = SentCommand(folder, lifecycle.send(folder, command, args)).wait(timeout)
    if reply is not None:
        return reply
    if state.over:
        raise RunError(
            f"Run {folder.id} ended before it answered "
            f"{command}{f': {state.reason}' if state.reason else '.'}"
        )
    raise RunError(
        f"Run {folder.id} has not answered {command} within {timeout:.0f} s; it will at its next step boundary."
    )
