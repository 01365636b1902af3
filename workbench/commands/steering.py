"""The commands that change a run: pause, resume, checkpoint, pin, stop, set, fork."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from workbench import launch
from workbench.commands.options import DEFAULT_ROOT, AsJson, Root, RunName, print_json
from workbench.core.errors import ConfigError
from workbench.launch import steer
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader


def pause(run: RunName, *, runs: Root = DEFAULT_ROOT, json: AsJson = False) -> int:
    """Wait before the next step; the device stays taken."""
    return _send(run, runs, "pause", json)


def resume(
    run: RunName,
    *,
    set: Annotated[
        list[str] | None,
        Parameter(negative="", consume_multiple=True, help="name=value: change this before the next step."),
    ] = None,
    yes: Annotated[bool, Parameter(negative="", help="Make the changes of --set without asking.")] = False,
    warm_start: Annotated[
        bool,
        Parameter(negative="", help="Go on although something was lost or changed; the result differs then."),
    ] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Go on: after a pause, or in a new process from the last complete checkpoint, exactly as if it had never stopped."""
    folder = record.find(run, runs)
    commands = steer.commands_for(folder, pairs(set)) if set else []
    if commands and not yes and not _confirmed(Reader(folder).current_settings(), commands[-1].args):
        return 2
    if not launch.state(folder).over:
        for command in commands:
            launch.send_and_wait(folder, *command)
        return _send(run, runs, "resume", json)
    now = launch.resume(folder, commands=commands, warm_start=warm_start)
    if json:
        print_json(
            {
                "run": now.id,
                "state": now.state,
                "step": now.step,
                "ok": True,
                "text": f"goes on from step {now.step}",
            }
        )
    else:
        print(f"Run {now.id} goes on.")
    return 0


def _confirmed(before: dict[str, Any], changes: dict[str, Any]) -> bool:
    """Show what would change, and ask; without a terminal to ask on: False."""
    for name, value in changes.items():
        print(f"  {name}: {before[name]} -> {value}", file=sys.stderr)
    if not sys.stdin.isatty():
        print("Nothing was done. Add --yes to go on with these changes.", file=sys.stderr)
        return False
    print("Go on with these changes? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def checkpoint(run: RunName, *, runs: Root = DEFAULT_ROOT, json: AsJson = False) -> int:
    """Write a checkpoint at the next step boundary."""
    return _send(run, runs, "checkpoint", json)


def pin(
    run: RunName,
    *,
    step: Annotated[int, Parameter(help="The checkpoint after this many steps.")],
    off: Annotated[bool, Parameter(negative="", help="Let it go again.")] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Keep a checkpoint for good, however many come after it."""
    folder = record.find(run, runs)
    checkpoints.pin(folder, step, not off)
    if json:
        print_json({"run": folder.id, "pinned": sorted(checkpoints.pinned(folder))})
    return 0


def stop(run: RunName, *, grace: float | None = None, runs: Root = DEFAULT_ROOT, json: AsJson = False) -> int:
    """End a run after its step, with a checkpoint; by force once --grace seconds are over. A queued run is
    cancelled."""
    now = launch.stop(record.find(run, runs), grace)
    if json:
        print_json(now.json())
    else:
        print(f"Run {now.id}: {now.state}, step {now.step} of {now.steps}")
    return 0


def set_live(
    run: RunName,
    *changes: Annotated[str, Parameter(help="name=value, for example beta=0.02.")],
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Change settings of a living run from its next step on."""
    folder = record.find(run, runs)
    return _print_reply(folder, steer.send_and_wait(folder, pairs(changes)), json)


def pairs(changes: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as a dict. Raises ConfigError."""
    if not changes or any("=" not in change for change in changes):
        raise ConfigError(
            "Write what to change as name=value, for example: workbench set RUN beta=0.02 learning_rate=1e-5"
        )
    return {
        name.strip().replace("-", "_"): value
        for name, _, value in (change.partition("=") for change in changes)
    }


def fork(
    run: RunName,
    *,
    step: Annotated[
        int, Parameter(help="From its last checkpoint at or before this step; 0 is the base model.")
    ],
    set: Annotated[
        list[str] | None,
        Parameter(negative="", consume_multiple=True, help="name=value, for example beta=0.1."),
    ] = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Start a new run where another one stood, with other settings. It goes on counting its steps."""
    folder = record.find(run, runs)
    begin = steer.fork_point(folder, step)
    child = steer.fork(folder, step, pairs(set) if set else {})
    if json:
        parent = {"run": folder.id, "step": begin.step}
        print_json({"run": child.id, "run_dir": str(child.path), "parent": parent})
    else:
        where = f"step {begin.step}" if begin.step else "the base model"
        print(f"Run {child.id} goes on from {where} of {folder.id}.")
    return 0


def _send(run: str, root: Path, command: str, as_json: bool) -> int:
    """Send a command without arguments and print its reply."""
    folder: RunFolder = record.find(run, root)
    return _print_reply(folder, launch.send_and_wait(folder, command), as_json)


def _print_reply(folder: RunFolder, reply: dict[str, Any], as_json: bool) -> int:
    """The exit code that belongs to the reply."""
    if as_json:
        print_json({"run": folder.id, **reply})
    else:
        print(reply["text"], file=sys.stdout if reply["ok"] else sys.stderr)
    return 0 if reply["ok"] else 2
