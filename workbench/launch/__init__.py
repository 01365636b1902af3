"""Start, watch, command and stop runs: `start(config, root)`, `state(folder)`, `send_and_wait(folder, command)`, `stop(folder)`,
`runs(root)`."""

from workbench.launch.command_client import send_and_wait
from workbench.launch.lease import device_kind
from workbench.launch.lifecycle import logs, resume, runs, send, start, state, stop
from workbench.launch.watch import RunState

__all__ = [
    "RunState",
    "device_kind",
    "logs",
    "resume",
    "runs",
    "send",
    "send_and_wait",
    "start",
    "state",
    "stop",
]
