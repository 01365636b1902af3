"""A real worker process around a loop that only counts: no torch, no model. What it does lies in `fake.json`
in the run folder.

Keys: step_seconds; hang_at (step in which the loop hears nothing); deaf (TERM ignored); raise_at; children
(how many, with the worker's environment); escaped (a child in a session of its own); teardown_hang; idle.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from workbench import worker
from workbench.config import RunConfig
from workbench.control import Control
from workbench.errors import ConfigError, ModelError
from workbench.record.files import write_json
from workbench.record.folder import RunFolder

SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


def plan(folder: RunFolder) -> dict[str, Any]:
    """What this run was told to do."""
    path = folder.path / "fake.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def count(config: RunConfig, folder: RunFolder, control: Control) -> None:
    """Obeys Control as the real loop does; writes what it was told into told.json."""
    told: list[dict[str, Any]] = []
    wanted = plan(folder)

    def sink(kind: str, data: dict[str, Any], step: int | None = None) -> None:
        told.append({"kind": kind, "step": step, **data})
        write_json(folder.path / "told.json", {"events": told})

    control.record_to(sink)
    for number in range(int(wanted.get("children", 0))):
        child = subprocess.Popen(SLEEPER, start_new_session=bool(wanted.get("escaped")))
        (folder.path / f"child-{number}.pid").write_text(str(child.pid))
    start = control.status.step
    for step in range(start, config.steps):
        for command in control.poll(step):
            control.answer(command, True, f"{command.command} taken")
        if control.stop_requested:
            break
        if step == wanted.get("raise_at"):
            raise {"user": ModelError, "config": ConfigError}.get(
                str(wanted.get("raise")), ZeroDivisionError
            )("the model has no pad token")
        if step == wanted.get("hang_at"):
            if wanted.get("deaf"):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (folder.path / "hanging").touch()
            time.sleep(600)
        control.phase("sample", 0, 4)
        deadline = time.monotonic() + float(wanted.get("step_seconds", 0.02))
        while time.monotonic() < deadline:
            time.sleep(0.005)
        control.progress(step + 1, config.steps)
    if wanted.get("teardown_hang"):
        threading.Thread(target=time.sleep, args=(600,)).start()


if __name__ == "__main__":
    wanted = plan(RunFolder(Path(sys.argv[1])))
    sys.exit(
        worker.main(
            train=count, idle=float(wanted.get("idle", 300)), teardown=float(wanted.get("teardown", 20))
        )
    )
