"""Whole runs to be killed: for every line of JSON on standard input one is forked off, which may kill itself with -9 at a chosen point.

A line is {"folder", "kill": [point, times] or null, "edits": {step: settings}}. The child is a real worker on that folder; forking it from
here saves the imports of torch. Edits are sent into its inbox at the boundary they are for, unless its record holds them already.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from workbench.record import checkpoints
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.rewards.runtime.worker_group import WorkerGroup
from workbench.rollouts.local import LocalEngine
from workbench.train import evaluate, grpo, rollout_stage
from workbench.train.checkpointing import checkpoint
from workbench.train.update import Updater
from workbench.worker import entry

POINTS: dict[str, tuple[object, str, str]] = {
    "sampling": (LocalEngine, "_dies_inside_", "generate"),
    "an update": (torch.optim.AdamW, "_dies_after_", "step"),
    "a reward": (WorkerGroup, "_dies_after_", "submit"),
    "a check": (evaluate, "_dies_inside_", "_metrics"),
    "looking back": (Updater, "_dies_inside_", "post_update_pass"),
    "a checkpoint": (checkpoint, "_dies_inside_", "save_file"),
    "the last rename of a checkpoint": (checkpoints, "_dies_inside_", "_replace"),
    "collecting": (rollout_stage, "_dies_after_", "_sample"),
}
"""Where a run may die: the function, and whether before or after its work."""


def die_at(point: str, times: int) -> None:
    """The `times`-th call of that point ends this process, as if from outside."""
    owner, when, name = POINTS[point]
    real: Callable[..., Any] = getattr(owner, name)
    left = [times]

    def patched(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "_dies_inside_":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, patched)


def send_edits(folder: RunFolder, edits: dict[str, dict[str, Any]]) -> None:
    """Somebody changes settings while the run goes on."""
    real = Control.poll

    def poll(self: Control, step: int | None = None) -> Any:
        known = [event["step"] for event in Reader(folder).events(kind="command")]
        if (wanted := edits.get(str(step))) and step not in known:
            folder.put("set", wanted)
        return real(self, step)

    Control.poll = poll  # type: ignore[method-assign]


def run(order: dict[str, Any]) -> int:
    torch.set_num_threads(1)
    folder = RunFolder(order["folder"])
    send_edits(folder, order.get("edits") or {})
    if order.get("kill"):
        die_at(*order["kill"])
    with (folder.path / "worker.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
        sys.stdout = open(log.fileno(), "w", closefd=False)  # noqa: SIM115 (ends with the process)
    return entry.main([str(folder.path), "--token", f"token-of-{folder.id}"], train=grpo.train)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            told = os.dup(1)
            code = run(json.loads(line))
            sys.stdout.flush()
            os.close(told)
            os._exit(code)
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
