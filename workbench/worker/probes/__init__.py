"""Requests to a model outside training: render prompts, time a step, sample, estimate the value of a token.

In: `probe` commands from the inbox. Out: their replies as events of the run.
"""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from workbench.core.config import RunConfig
from workbench.core.errors import WorkbenchError
from workbench.record.control import Control
from workbench.record.folder import Command, RunFolder
from workbench.record.redact import redact_text
from workbench.worker.probes.branch import branch
from workbench.worker.probes.context import ProbeContext
from workbench.worker.probes.rehearsal import rehearsal
from workbench.worker.probes.samples import fresh, prompts, sample

__all__ = ["HANDLERS", "ProbeContext", "handler_for_run", "reply"]

HANDLERS: dict[str, Callable[[ProbeContext, Mapping[str, Any]], dict[str, Any]]] = {
    "branch": branch,
    "prompts": prompts,
    "rehearsal": rehearsal,
    "sample": sample,
    "fresh": fresh,
}
"""Every probe by name."""


def handler_for_run(
    config: RunConfig, folder: RunFolder, control: Control, policy: Any
) -> Callable[[Command], None]:
    """Replies to the probes of a training run, between two steps, with its own policy."""
    return partial(reply, ProbeContext(config, folder, control, policy=policy))


def reply(context: ProbeContext, command: Command) -> None:
    """Run one probe and send its reply; a failure is a reply too. `args` of the command: the probe's name as `probe`, its
    arguments, and as `config` the settings to use (else those of the context)."""
    name = str(command.args.get("probe", ""))
    handler = HANDLERS.get(name)
    if command.command != "probe" or handler is None:
        context.control.reply(
            command,
            False,
            f"There is no probe {name or command.command!r}. There are: {', '.join(HANDLERS)}.",
        )
        return
    started = time.monotonic()
    try:
        if "config" in command.args:
            context.use_settings(RunConfig.parse(command.args["config"]))
        result = handler(context, command.args)
    except WorkbenchError as error:
        context.control.reply(command, False, redact_text(str(error)))
    except Exception as error:  # process boundary: the client gets the reason, the log the traceback
        print(redact_text(traceback.format_exc()), file=sys.stderr, flush=True)
        context.control.reply(command, False, redact_text(f"{type(error).__name__}: {error}"))
    else:
        seconds = time.monotonic() - started
        context.control.reply(
            command, True, f"{name} took {seconds:.1f} s", {**result, "seconds_taken": seconds}
        )
