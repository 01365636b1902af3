"""One probe of a model on a worker of its own, which is stopped and deleted when the probe is over.

In: a RunConfig and the name of a probe. Out: the worker's progress in words, and at last the probe's result.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import RunState, preflight
from workbench.launch.command_client import REPLY_SECONDS, SentCommand

POLL_SECONDS = 0.25
PHASES = {
    "import": "Starting Python and PyTorch…",
    "load model": "Loading the model…",
    "load tokenizer": "Loading the tokenizer…",
    "update": "Updating on the samples…",
    "idle": "Working…",
}
"""Phases of a worker, as a page shows them."""


class Progress(NamedTuple):
    """Where a probe stands: words for a page, and once it is over its result, or `failed` with the reason in words."""

    words: str
    result: Mapping[str, Any] | None = None
    failed: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.failed or self.result is not None


def run(config: RunConfig, root: Path, probe: str, *, often: bool = False, **args: Any) -> Iterator[Progress]:
    """Yields the worker's progress until the reply is there; with `often` also when nothing has changed, so that the caller can stop.
    Raises ConfigError and RunError before anything is started.

    The worker is stopped as soon as this generator ends, however it ends: a run that is started next must not queue behind it.
    """
    folder = preflight.start(config, root, "probe")
    try:
        sent = SentCommand(folder, folder.put("probe", {"probe": probe, **args}))
        before = ""
        for state, reply, late in sent.updates(every=POLL_SECONDS):
            words = describe(state)
            if reply is not None:
                yield Progress(reply["text"], reply.get("result"), failed=not reply["ok"])
            elif state.over:
                yield Progress(
                    state.reason or f"The probe worker {state.state} without a reply.", failed=True
                )
            elif late:
                minutes = f"{REPLY_SECONDS / 60:.0f} minutes"
                yield Progress(f"No reply within {minutes}. Is another run holding the device?", failed=True)
            elif words != before or often:
                before = words
                yield Progress(words)
    finally:
        launch.stop(folder, grace=2.0, wait=True, kill_after=2.0)
        shutil.rmtree(folder.path, ignore_errors=True)


def describe(state: RunState) -> str:
    """What a worker is doing, in words."""
    if state.state == "queued":
        return f"Waiting for the device: {state.reason or 'another run holds it'}."
    if state.phase == "sample":
        done = f", {state.phase_done} of {state.phase_total} done" if state.phase_total else ""
        return f"Sampling{done}…"
    return PHASES.get(state.phase, "Starting a worker…")
