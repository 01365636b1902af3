"""Whether model-written code can be contained on this machine: a badge where a reward that runs some is chosen.

In: the chosen rewards. Out: one line. The sandbox attacks itself for it, once while the dashboard runs.
"""

import functools
import threading
from typing import NamedTuple

from markupsafe import Markup

from workbench.core.config import RunConfig
from workbench.core.errors import SandboxError
from workbench.rewards.builtin.catalogue import REWARDS
from workbench.sandbox import Sandbox
from workbench.view.common.markup import tag

_lock = threading.Lock()


class SandboxCheck(NamedTuple):
    """What came of the attempts to get out."""

    safe: bool
    sentence: str


def check_sandbox() -> SandboxCheck:
    """Start a sandbox, try to get out of it, end it; about a second the first time."""
    with _lock:
        return _attempt()


@functools.cache
def _attempt() -> SandboxCheck:
    try:
        with Sandbox() as sandbox:
            return SandboxCheck(True, sandbox.badge.message)
    except SandboxError as error:
        return SandboxCheck(
            False, f"Programs cannot be run here, so this reward would score nothing. {error}"
        )


def badge(config: RunConfig | None) -> Markup:
    """The badge; nothing where no reward runs programs."""
    names = [spec.name for spec in config.rewards if spec.enabled] if config else []
    if not any(name in REWARDS and REWARDS[name].family == "programs" for name in names):
        return Markup("")
    found = check_sandbox()
    mark = tag("span", "contained" if found.safe else "refused", class_="chip" if found.safe else "chip warn")
    return tag("p", [mark, " ", found.sentence], class_="wb-note wb-sandbox", role="status")
