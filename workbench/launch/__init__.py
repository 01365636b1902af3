"""Start, watch, ask and stop runs: `start(config, root)`, `state(folder)`, `ask(folder, command)`,
`stop(folder)`, `runs(root)`."""

from workbench.launch.asking import ask
from workbench.launch.lease import device_kind, holder
from workbench.launch.local import resume, send, start, stop
from workbench.launch.watch import RunState, runs, state

__all__ = ["RunState", "ask", "device_kind", "holder", "resume", "runs", "send", "start", "state", "stop"]
