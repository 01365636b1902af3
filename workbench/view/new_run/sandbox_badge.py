"""Whether the sandbox can contain model-written code on this machine: a badge where a chosen reward runs such code.

In: the chosen rewards. Out: one line. The sandbox tests itself by attacks, once per start of the dashboard.
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
    """Result of the sandbox's self-test."""

    safe: bool
    sentence: str


def check_sandbox() -> SandboxCheck:
    """Start a sandbox, run its self-test, stop it; about a second the first time."""
    with _lock:
        return _self_test()


@functools.cache
def _self_test() -> SandboxCheck:
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
