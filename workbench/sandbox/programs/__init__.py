"""The programs that test the sandbox, and what counts as contained: they are run as jobs, never imported.

In: folder names. Out: the sources, and for each attack the statuses with which it may end.
"""

from pathlib import Path
from typing import NamedTuple

from workbench.sandbox.job import Status

HERE = Path(__file__).resolve().parent


class Program(NamedTuple):
    """A program under its name; `about` is its first line in words."""

    name: str
    about: str
    source: str


def load(kind: str) -> list[Program]:
    """All programs of one kind: attacks, tricks or benign."""
    found = []
    for path in sorted((HERE / kind).glob("[a-z]*.py")):
        source = path.read_text(encoding="utf-8")
        found.append(Program(path.stem, source.split('"""')[1], source))
    return found


DENIED: frozenset[Status] = frozenset({"ok"})
"""The system said no, the attack noticed and returned False."""

CONTAINED: dict[str, frozenset[Status]] = {
    "take_10_gb": frozenset({"memory"}),
    "grow_list": frozenset({"memory"}),
    "many_threads": frozenset({"ok", "killed", "timeout"}),
    "loop_ignoring_signals": frozenset({"timeout"}),
    "sleep_long": frozenset({"timeout"}),
    "print_endlessly": frozenset({"output_limit", "timeout"}),
    "return_megabytes": frozenset({"output_limit"}),
    "crash": frozenset({"killed"}),
    "recurse": frozenset({"error", "memory", "killed", "timeout"}),
    "fill_disk": frozenset({"output_limit", "timeout"}),
    "fill_disk_unseen": frozenset({"output_limit", "timeout"}),
    "many_files": frozenset({"output_limit", "timeout"}),
    "deep_folders": frozenset({"output_limit", "timeout"}),
    "leave_early": frozenset({"error"}),
}
"""How the attacks on resources must end; every other attack is `DENIED`. None may return True."""

WAITING = frozenset({"loop_ignoring_signals", "sleep_long", "close_and_stay"})
"""End only by the wall time, so they are given little."""

SLOW = WAITING | {"many_threads", "recurse", "fill_disk", "fill_disk_unseen", "many_files", "deep_folders"}
"""Left out of the probe at the start of every sandbox."""
