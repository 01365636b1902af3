"""A real worker process around a loop that only counts: no torch, no model. What it does lies in `fake.json`
in the run folder.

Keys: step_seconds; hang_at (step in which the loop reads no command); deaf (TERM ignored); raise_at (with `message`); children
(how many, with the worker's environment); escaped (a child in a session of its own); teardown_hang; idle; shows (how many fake
steps are recorded at the start); alarm (raised there).
"""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.writer import Writer
from workbench.worker import entry

SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


def plan(folder: RunFolder) -> dict[str, Any]:
    """What this run is to do."""
    path = folder.path / "fake.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def count(config: RunConfig, folder: RunFolder, control: Control) -> None:
    """Follows Control as the real loop does, and replies into a real record."""
    wanted = plan(folder)
    with Writer(folder, config) as record:
        control.record_to(record.event)
        for number in range(int(wanted.get("children", 0))):
            child = subprocess.Popen(SLEEPER, start_new_session=bool(wanted.get("escaped")))
            (folder.path / f"child-{number}.pid").write_text(str(child.pid))
        for number in range(int(wanted.get("shows", 0))):
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from tests.fakes import make_step  # noqa: PLC0415 (most fake runs record nothing)

            record.step(make_step(number, groups=4, samples=6, steps=config.steps))
        if "alarm" in wanted:
            record.alarm(**wanted["alarm"])
        for step in range(control.status.step, config.steps):
            for command in control.poll(step):
                control.reply(command, True, f"{command.command} taken")
                if command.command == "set":
                    changed = config.live_changed(command.args)
                    moved = {n: {"from": getattr(config, n), "to": getattr(changed, n)} for n in command.args}
                    control.event("setting_changed", moved)
                    config = changed
            if control.stop_requested:
                break
            take_step(step, folder, wanted)
            control.phase("sample", 0, 4)
            time.sleep(float(wanted.get("step_seconds", 0.02)))
            control.progress(step + 1, config.steps)
    if wanted.get("teardown_hang"):
        threading.Thread(target=time.sleep, args=(600,)).start()


def take_step(step: int, folder: RunFolder, wanted: dict[str, Any]) -> None:
    """What goes wrong in this step, if anything."""
    if step == wanted.get("raise_at"):
        raise (ModelError if wanted.get("raise") == "user" else ZeroDivisionError)(
            wanted.get("message", "the model has no pad token")
        )
    if step == wanted.get("hang_at"):
        if wanted.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder.path / "hanging").touch()
        time.sleep(600)


if __name__ == "__main__":
    wanted = plan(RunFolder(Path(sys.argv[1])))
    sys.exit(
        entry.main(
            train=count, idle=float(wanted.get("idle", 300)), teardown=float(wanted.get("teardown", 20))
        )
    )
