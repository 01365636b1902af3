"""The place "this machine": starts workers as detached processes, which outlive whoever started them, and stops them.

In: a run folder. Out: a `python -m workbench.worker` of its own behind it. The module is a `place.Place`.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import psutil

from workbench.core.errors import RunError
from workbench.launch import identity, torchrun, watch
from workbench.launch.watch import EXIT_MARK, RunState
from workbench.record.folder import RunFolder
from workbench.record.status import ENDED, Status

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "workbench.worker")
KILL_SECONDS = 20.0
"""Between SIGTERM and SIGKILL."""
FINAL_STATUS_SECONDS = 10.0
"""How long a worker may take to write its final status after its torchrun is gone."""


def submit(
    folder: RunFolder,
    *,
    step: int = 0,
    earlier: float = 0.0,
    worker: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> None:
    """Start the worker of a run folder, or `nproc` of them: a session of its own, no terminal, output to worker.log."""
    config, processes = folder.config(), torchrun.process_count(folder)
    _kill_leftovers(folder)
    folder.error_path.unlink(missing_ok=True)
    token = secrets.token_hex(16)
    now = time.time()
    # The one status that the worker does not write itself: from here on the run is found by its token, even if this
    # process dies now.
    status = Status(
        state="starting",
        phase="start",
        step=step,
        steps=config.steps,
        boot_id=identity.boot_id(),
        token=token,
        started=now,
        earlier=earlier,
        heartbeat=now,
        progress_at=now,
    )
    folder.write_status(asdict(status))
    environment = {
        "TQDM_DISABLE": "1",
        **os.environ,
        identity.TOKEN_VARIABLE: token,
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }
    environment.update(thread_variables(config.threads, processes))
    with folder.log_path.open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        process = subprocess.Popen(
            [*torchrun.command(worker or WORKER, processes), str(folder.path), "--token", token, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            umask=0o077,
        )
    threading.Thread(
        target=_reap, args=(process, folder, token, processes), name=f"reap-{process.pid}", daemon=True
    ).start()


def thread_variables(threads: int | None, nproc: int = 1) -> dict[str, str]:
    """Environment that gives numeric libraries this many threads; None: what the environment says, else all
    cores but one, shared out among `nproc` processes."""
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = str(threads or max(1, (cores - 1) // nproc))
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count)


def state(folder: RunFolder) -> RunState:
    """The state of one run, now."""
    return watch.state(folder)


def logs(folder: RunFolder, lines: int = 40) -> list[str]:
    """The last lines of worker.log."""
    return folder.log_tail(lines)


def stop(
    folder: RunFolder, grace: float | None = None, *, wait: bool = True, kill_after: float = KILL_SECONDS
) -> RunState:
    """End a run: ask for a stop at the next step boundary; after `grace` seconds SIGTERM; after `kill_after`
    more SIGKILL to the worker and everything it started.

    `grace` None: twice the usual step and a minute. `wait` False returns at once and does the rest in a
    thread; the worker also keeps the grace by itself, in case the caller goes away.
    """
    now = watch.state(folder)
    who = watch.identity_of(folder.status()) if now.state != "damaged" else None
    if now.over:
        if who and now.alive:  # finished, but its process hangs on the way out
            identity.kill_process_tree(who)
        else:
            _kill_leftovers(folder)
        return watch.state(folder)
    seconds = 2 * (now.step_seconds or 0.0) + 60 if grace is None else grace
    folder.put("stop", {"grace": seconds + kill_after / 2})
    if not wait:
        threading.Thread(
            target=_enforce_stop, args=(folder, seconds, kill_after), name=f"stop-{folder.id}", daemon=True
        ).start()
        return watch.state(folder)
    return _enforce_stop(folder, seconds, kill_after)


def _enforce_stop(folder: RunFolder, grace: float, kill_after: float) -> RunState:
    """Wait for a stop that was asked for; SIGTERM after `grace` seconds, SIGKILL after `kill_after` more."""

    def is_over() -> bool:
        return watch.state(folder).over

    if not _within(grace, is_over):
        if (who := watch.identity_of(folder.status())) and (process := identity.find(who)):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        if not _within(kill_after, is_over):
            who = watch.identity_of(folder.status())
            _kill(
                folder,
                who,
                f"Stopped by force: it did not end within {grace:.0f} s and {kill_after:.0f} s more.",
            )
    _kill_leftovers(folder)
    return watch.state(folder)


def _kill(folder: RunFolder, who: identity.Identity | None, reason: str) -> None:
    """SIGKILL a worker and write the final status that it no longer can."""
    if who is None:  # it has not come up far enough to write down who it is
        token = str(folder.status().get("token") or "")
        process = identity.find_by_token(token)
        if process is None:
            return
        who = identity.Identity(process.pid, identity.start_time(process), identity.boot_id(), token)
    identity.kill_process_tree(who)
    status = folder.status()
    # Without a final status this would look like a crash.
    if status.get("token") == who.token and status.get("state") not in ENDED:
        folder.write_status(
            {**status, "state": "stopped", "reason": reason, "ended": time.time(), "eta": None}
        )


def _kill_leftovers(folder: RunFolder) -> None:
    """Kill the processes that a dead worker left behind."""
    who = watch.identity_of(folder.status())
    if who and not identity.alive(who):
        identity.kill_process_tree(who, include_worker=False)


def _reap(process: "subprocess.Popen[bytes]", folder: RunFolder, token: str, nproc: int) -> None:
    """Wait for our own child, so that it does not stay a zombie, and note in its log how it ended."""
    code = process.wait()
    with contextlib.suppress(OSError, RunError):
        if (
            nproc > 1
        ):  # the child was torchrun; the worker notices that it is gone and writes its final status
            _within(FINAL_STATUS_SECONDS, lambda: folder.status().get("state") in ENDED)
        if code < 0 or folder.status().get("state") not in ENDED:
            with folder.log_path.open("a") as log:
                log.write(f"{EXIT_MARK} {watch.exit_sentence(code)}\n")
        left = identity.Identity(process.pid, 0.0, "", token)
        identity.kill_process_tree(left, include_worker=False)


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    """Whether `done()` became true in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
