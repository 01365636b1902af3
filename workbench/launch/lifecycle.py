"""Starts, resumes and stops runs, and sends them commands.

In: a RunConfig and a runs root, or a run folder. Out: a run folder with a worker behind it, wherever its place is.
"""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import lease, local
from workbench.launch.place import Place
from workbench.launch.watch import RunState
from workbench.record import folder as record
from workbench.record.files import STATE_FOLDER
from workbench.record.folder import Kind, RunFolder

PLACE: Place = local
"""Where workers run: this machine."""
KEY_SECONDS = 86400.0
"""How long the key of a start is remembered."""

state, stop, logs = PLACE.state, PLACE.stop, PLACE.logs


def runs(root: Path | str) -> list[RunState]:
    """All runs below `root`, newest first; folders that cannot be read are listed as damaged."""
    return [state(folder) for folder in record.folders(root)]


def start(
    config: RunConfig,
    root: Path | str,
    kind: Kind = "train",
    parent: Mapping[str, Any] | None = None,
    *,
    rewards: Iterable[Mapping[str, Any]] = (),
    files: Mapping[str, str | bytes] | None = None,
    key: str | None = None,
    worker: Sequence[str] | None = None,
    prepare: Callable[[RunFolder], object] | None = None,
) -> RunFolder:
    """Make a run folder and start its worker, which queues for the device by itself.

    `rewards` and `files` are the resolved reward sources (`preflight.start` resolves and passes them); `prepare` puts what a fork
    begins with into the folder. The same `key` starts one run however often it comes: a form sends one per form shown, so that two clicks,
    also in two app processes, are one run. Raises RunError where the runs root cannot be written.
    """
    root = Path(root).expanduser().absolute()
    with _start_lock(root):
        if (known := _started_with(root, key)) is not None:
            return known
        folder = record.create(
            root, config, kind, parent=parent, rewards=rewards, files=files, prepare=prepare
        )
        try:
            # A fork goes on counting its parent's steps, also while it waits.
            PLACE.submit(folder, step=int((parent or {}).get("step") or 0), worker=worker)
        except OSError as error:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise RunError(
                f"The run could not be started in {root}: {error.strerror or error}. Nothing is running; "
                "make room, or choose another folder with --runs DIR."
            ) from error
        with contextlib.suppress(OSError):  # the run goes on; only a second click would start another one
            _remember(root, key, folder)
    return folder


def resume(
    folder: RunFolder,
    worker: Sequence[str] | None = None,
    *,
    commands: Sequence[tuple[str, Mapping[str, Any]]] = (),
    warm_start: bool = False,
) -> RunState:
    """Start a worker again on a run that is over but not finished; it goes on from the last complete checkpoint.
    Two callers at once start one worker.

    `commands`: (command, arguments) to apply before the next step. `warm_start`: go on although state that exactness needs is
    missing or was changed. Raises RunError: finished, damaged.
    """
    with lease.locked(folder.path / "start.lock"):
        now = state(folder)
        if now.state == "damaged" and folder.status_damage():
            # The state can be had again from the record and the checkpoints: only the file is in the way.
            record.set_aside(folder.status_path)
            now = state(folder)
        if now.state == "damaged":
            raise RunError(f"Run {folder.id} cannot go on: {now.reason}")
        if now.state == "finished":
            raise RunError(
                f"Run {folder.id} is finished: all {now.steps} steps are done. Fork it to train on."
            )
        if now.alive and not now.over:
            return now
        folder.take()  # commands for the worker that is gone
        for command, args in commands:
            folder.put(command, args)
        PLACE.submit(
            folder,
            step=now.step,
            earlier=now.seconds or 0.0,
            worker=worker,
            options=("--warm-start",) if warm_start else (),
        )
    return state(folder)


def send(folder: RunFolder, command: str, args: Mapping[str, Any] | None = None) -> str:
    """Put a command into the inbox of a living run; returns its id. The worker replies in the run's events. Raises RunError
    where no worker runs."""
    now = state(folder)
    if not now.alive or now.over:
        raise RunError(
            f"Run {folder.id} is {now.state}: nobody is there to {command}. "
            + ("Resume it first." if now.state not in ("finished", "damaged") else "Fork it to go on.")
        )
    return folder.put(command, args)


# -- one run per key ---------------------------------------------------------------------------------------


def _start_lock(root: Path) -> contextlib.AbstractContextManager[None]:
    """Lets one process at a time start runs in `root`. Raises RunError where nothing can be written there."""
    try:
        (root / STATE_FOLDER / "starts").mkdir(mode=0o700, parents=True, exist_ok=True)
        return lease.locked(root / STATE_FOLDER / "start.lock")
    except OSError as error:
        raise RunError(
            f"Runs cannot be kept in {root}: {error.strerror or error}. Choose another folder with --runs "
            "DIR."
        ) from error


def _key_file(root: Path, key: str) -> Path:
    """The file that names the run which was started with this key."""
    return root / STATE_FOLDER / "starts" / hashlib.sha256(key.encode()).hexdigest()[:24]


def _started_with(root: Path, key: str | None) -> RunFolder | None:
    if key is None or not _key_file(root, key).exists():
        return None
    folder = RunFolder(root / _key_file(root, key).read_text().strip())
    return folder if folder.config_path.exists() else None


def _remember(root: Path, key: str | None, folder: RunFolder) -> None:
    if key is None:
        return
    for old in _key_file(root, key).parent.iterdir():
        if time.time() - old.stat().st_mtime > KEY_SECONDS:
            old.unlink(missing_ok=True)
    _key_file(root, key).write_text(folder.id)
