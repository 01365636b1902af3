"""Start, watch, ask and stop runs: `start(config, root)`, `state(folder)`, `ask(folder, command)`,
`stop(folder)`, `runs(root)`."""

from workbench.launch.command_client import send_and_wait
from workbench.launch.lease import device_kind, holder
from workbench.launch.local import resume, send, start, stop
from workbench.launch.watch import RunState, runs, state

__all__ = [
    "RunState",
    "device_kind",
    "holder",
    "resume",
    "runs",
    "send",
    "send_and_wait",
    "start",
    "state",
    "stop",
]
