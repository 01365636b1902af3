"""Asks a model something outside training, from a page: starts a bench worker, waits for its answer, and
leaves nothing behind.

In: a RunConfig and the name of a probe. Out: what the worker is at, again and again, and at last its answer.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import RunState, preflight
from workbench.launch.command_client import REPLY_SECONDS, SentCommand

LOOK = 0.25


class Progress(NamedTuple):
    """Where a probe stands: words for people, and once it is over its result or why there is none."""

    words: str
    result: Mapping[str, Any] | None = None
    failed: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.failed or self.result is not None


def run(config: RunConfig, root: Path, probe: str, *, often: bool = False, **args: Any) -> Iterator[Progress]:
    """Says what the worker is at until the answer is there; `often`: also when there is nothing new, so that
    who asks can end it. Raises ConfigError and RunError before anything is started.

    The worker gives its device back as soon as this ends, however it ends: a run that is started next must
    not queue behind it.
    """
    folder = preflight.start(config, root, "probe")
    try:
        sent = SentCommand(folder, folder.put("probe", {"probe": probe, **args}))
        before = ""
        for state, reply, late in sent.updates(every=LOOK):
            words = describe(state)
            if reply is not None:
                yield Progress(reply["text"], reply.get("result"), failed=not reply["ok"])
            elif state.over:
                yield Progress(
                    state.reason or f"The probe worker {state.state} without an answer.", failed=True
                )
            elif late:
                minutes = f"{REPLY_SECONDS / 60:.0f} minutes"
                yield Progress(f"No answer within {minutes}. Is another run holding the device?", failed=True)
            elif words != before or often:
                before = words
                yield Progress(words)
    finally:
        launch.stop(folder, grace=2.0, wait=True, kill_after=2.0)
        shutil.rmtree(folder.path, ignore_errors=True)


def describe(state: RunState) -> str:
    """What the worker is at, for people."""
    if state.state == "queued":
        return f"Waiting for the device: {state.reason or 'another run holds it'}."
    phases = {
        "import": "Starting Python and PyTorch…",
        "load model": "Loading the model…",
        "load tokenizer": "Loading the tokenizer…",
        "update": "Updating on the answers…",
        "idle": "Working…",
    }
    if state.phase == "sample":
        done = f", {state.phase_done} of {state.phase_total} done" if state.phase_total else ""
        return f"Sampling answers to the longest prompts{done}…"
    return phases.get(state.phase, "Starting a worker…")
