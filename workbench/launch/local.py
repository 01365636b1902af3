"""Starts, tells and stops workers on this machine. A worker is detached: it outlives whoever started it.

In: a RunConfig and a runs root. Out: a run folder with a `python -m workbench.worker` of its own behind it.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import identity, lease, torchrun, watch
from workbench.launch.watch import EXIT_MARK, RunState
from workbench.record import folder as record
from workbench.record.files import STATE_FOLDER
from workbench.record.folder import Kind, RunFolder
from workbench.record.status import ENDED, Status

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "workbench.worker")
KILL_SECONDS = 20.0
"""Between SIGTERM and SIGKILL."""
LAST_WORD_SECONDS = 10.0
FORGET_SECONDS = 86400.0


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
    with _starts(root):
        known = _remembered(root, key)
        if known is not None:
            return known
        folder = record.create(
            root, config, kind, parent=parent, rewards=rewards, files=files, prepare=prepare
        )
        try:
            spawn(
                folder,
                steps=config.steps,
                threads=config.threads,
                nproc=config.nproc if kind == "train" else 1,
                step=int((parent or {}).get("step") or 0),  # a fork goes on counting, also while it waits
                worker=worker,
            )
            _remember(root, key, folder)
        except OSError as error:
            if folder.status().get("pid") is None and not identity.find_by_token(
                str(folder.status().get("token") or "")
            ):
                shutil.rmtree(folder.path, ignore_errors=True)  # nothing runs in it: no half-made run stays
            raise RunError(
                f"The run could not be started in {root}: {error.strerror or error}. Nothing is running; "
                "make room, or choose "
                "another folder with --runs DIR."
            ) from error
    return folder


def resume(
    folder: RunFolder,
    worker: Sequence[str] | None = None,
    *,
    commands: Sequence[tuple[str, Mapping[str, Any]]] = (),
    warm: bool = False,
) -> RunState:
    """Start a worker again on a run that is over but not finished; it goes on from the last whole checkpoint.
    Two callers at once start one worker.

    `commands`: what it is told before its next step, each with its arguments. `warm`: go on although something
    that exactness needs is missing or was changed. Raises RunError: finished, damaged.
    """
    with lease.locked(folder.path / "start.lock"):
        now = watch.state(folder)
        if now.state == "damaged":
            raise RunError(f"Run {folder.id} cannot go on: {now.reason}")
        if now.state == "finished":
            raise RunError(
                f"Run {folder.id} is finished: all {now.steps} steps are done. Fork it to train on."
            )
        if now.alive and not now.over:
            return now
        _sweep(folder)
        for _ in folder.take():  # wishes to a worker that is gone
            pass
        config = folder.config()
        folder.error_path.unlink(missing_ok=True)
        for command, args in commands:
            folder.put(command, args)
        spawn(
            folder,
            steps=config.steps,
            threads=config.threads,
            nproc=config.nproc if now.kind == "train" else 1,
            step=now.step,
            earlier=now.seconds or 0.0,
            worker=worker,
            options=("--warm-start",) if warm else (),
        )
    return watch.state(folder)


def spawn(
    folder: RunFolder,
    *,
    steps: int,
    threads: int | None = None,
    nproc: int = 1,
    step: int = 0,
    earlier: float = 0.0,
    worker: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> None:
    """Start the worker of a run folder, or `nproc` of them: a session of its own, no terminal, output to worker.log."""
    token = secrets.token_hex(16)
    now = time.time()
    # The one status that is not the worker's: from here on the run is found by its token, even if this
    # process dies now.
    folder.write_status(
        asdict(
            Status(
                state="starting",
                phase="start",
                step=step,
                steps=steps,
                boot_id=identity.boot_id(),
                token=token,
                started=now,
                earlier=earlier,
                heartbeat=now,
                progress_at=now,
            )
        )
    )
    environment = {
        "TQDM_DISABLE": "1",
        **os.environ,
        identity.TOKEN_VARIABLE: token,
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }
    environment.update(thread_variables(threads, nproc))
    with folder.log_path.open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        process = subprocess.Popen(
            [*torchrun.command(worker or WORKER, nproc), str(folder.path), "--token", token, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            umask=0o077,
        )
    threading.Thread(
        target=_reap, args=(process, folder, token, nproc), name=f"reap-{process.pid}", daemon=True
    ).start()


def thread_variables(threads: int | None, nproc: int = 1) -> dict[str, str]:
    """Environment that gives numeric libraries this many threads; None: what the environment says, else all
    cores but one, shared out among `nproc` processes."""
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = str(threads or max(1, (cores - 1) // nproc))
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count)


def send(folder: RunFolder, command: str, args: Mapping[str, Any] | None = None) -> str:
    """Drop a command into a living run's inbox; its id comes back, the worker answers in events. Raises
    RunError where nobody is there to answer."""
    now = watch.state(folder)
    if not now.alive or now.over:
        raise RunError(
            f"Run {folder.id} is {now.state}: nobody is there to {command}. "
            + ("Resume it first." if now.state not in ("finished", "damaged") else "Fork it to go on.")
        )
    return folder.put(command, args)


def stop(
    folder: RunFolder, grace: float | None = None, *, wait: bool = True, kill_after: float = KILL_SECONDS
) -> RunState:
    """End a run: ask for a stop at the next step boundary; after `grace` seconds SIGTERM; after `kill_after`
    more SIGKILL to the worker and everything it started.

    `grace` None: twice the usual step and a minute. `wait` False returns at once and does the rest in a
    thread; the worker also holds itself to the grace, in case the caller goes away.
    """
    now = watch.state(folder)
    who = watch.identity_of(folder.status()) if now.state != "damaged" else None
    if now.over:
        if who and now.alive:  # finished, but its process hangs on the way out
            identity.kill_process_tree(who)
        else:
            _sweep(folder)
        return watch.state(folder)
    seconds = 2 * (now.step_seconds or 0.0) + 60 if grace is None else grace
    folder.put("stop", {"grace": seconds + kill_after / 2})
    if not wait:
        threading.Thread(
            target=_see_to_it, args=(folder, seconds, kill_after), name=f"stop-{folder.id}", daemon=True
        ).start()
        return watch.state(folder)
    return _see_to_it(folder, seconds, kill_after)


def _see_to_it(folder: RunFolder, grace: float, kill_after: float) -> RunState:
    def gone() -> bool:
        return watch.state(folder).over

    if not _within(grace, gone):
        if (who := watch.identity_of(folder.status())) and (process := identity.find(who)):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        if not _within(kill_after, gone):
            who = watch.identity_of(folder.status())
            _kill(
                folder,
                who,
                f"Stopped by force: it did not end within {grace:.0f} s and {kill_after:.0f} s more.",
            )
    _sweep(folder)
    return watch.state(folder)


def _kill(folder: RunFolder, who: identity.Identity | None, reason: str) -> None:
    if who is None:  # it has not come up far enough to say who it is
        token = str(folder.status().get("token") or "")
        process = identity.find_by_token(token)
        if process is None:
            return
        who = identity.Identity(process.pid, identity.start_time(process), identity.boot_id(), token)
    identity.kill_process_tree(who)
    status = folder.status()
    # Nobody else is left to write the last word, and without it this would look like a crash.
    if status.get("token") == who.token and status.get("state") not in ENDED:
        folder.write_status(
            {**status, "state": "stopped", "reason": reason, "ended": time.time(), "eta": None}
        )


def _sweep(folder: RunFolder) -> None:
    """Kill what a dead worker left behind."""
    who = watch.identity_of(folder.status())
    if who and not identity.alive(who):
        identity.kill_process_tree(who, include_worker=False)


def _reap(process: "subprocess.Popen[bytes]", folder: RunFolder, token: str, nproc: int) -> None:
    """Wait for our own child, so that it does not stay a zombie, and note in its log how it ended."""
    code = process.wait()
    with contextlib.suppress(OSError, RunError):
        if (
            nproc > 1
        ):  # the child was torchrun; the worker notices that it is gone, and has a last word to say
            _within(LAST_WORD_SECONDS, lambda: folder.status().get("state") in ENDED)
        if code < 0 or folder.status().get("state") not in ENDED:
            with folder.log_path.open("a") as log:
                log.write(f"{EXIT_MARK} {watch.exit_sentence(code)}\n")
        left = identity.Identity(process.pid, 0.0, "", token)
        identity.kill_process_tree(left, include_worker=False)


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _starts(root: Path) -> contextlib.AbstractContextManager[None]:
    try:
        return _open_lock(root)
    except OSError as error:
        raise RunError(
            f"Runs cannot be kept in {root}: {error.strerror or error}. Choose another folder with --runs "
            "DIR."
        ) from error


def _open_lock(root: Path) -> contextlib.AbstractContextManager[None]:
    (root / STATE_FOLDER / "starts").mkdir(mode=0o700, parents=True, exist_ok=True)
    return lease.locked(root / STATE_FOLDER / "start.lock")


def _note(root: Path, key: str) -> Path:
    return root / STATE_FOLDER / "starts" / hashlib.sha256(key.encode()).hexdigest()[:24]


def _remembered(root: Path, key: str | None) -> RunFolder | None:
    if key is None or not _note(root, key).exists():
        return None
    folder = RunFolder(root / _note(root, key).read_text().strip())
    return folder if folder.config_path.exists() else None


def _remember(root: Path, key: str | None, folder: RunFolder) -> None:
    if key is None:
        return
    for old in _note(root, key).parent.iterdir():
        if time.time() - old.stat().st_mtime > FORGET_SECONDS:
            old.unlink(missing_ok=True)
    _note(root, key).write_text(folder.id)
