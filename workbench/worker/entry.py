"""The process around the loop: identity, lease, heartbeat, inbox, signals, and a last word however it ends.

`python -P -m workbench.worker RUN_DIR --token T`. In: a run folder. Out: the same folder, with everything the
run leaves behind. Torch is imported only after the device is ours, so a queued run costs next to nothing.
"""

import argparse
import faulthandler
import fcntl
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from workbench.core.config import RunConfig
from workbench.core.errors import RunError, WorkbenchError
from workbench.launch import identity, lease, local, torchrun
from workbench.launch.watch import oom_kills
from workbench.record.control import Control
from workbench.record.files import write_json
from workbench.record.folder import RunFolder
from workbench.record.redact import redact, redact_text
from workbench.record.status import ENDED, State, Status
from workbench.record.writer import Writer
from workbench.worker import probes

Train = Callable[[RunConfig, RunFolder, Control], object]
IDLE_SECONDS = 300.0
"""A bench worker without work gives its device back after this."""
TEARDOWN_SECONDS = 20.0
"""How long libraries may take to shut down after the last word."""


class Ended(BaseException):
    """A second request to end came while the first was not yet through: leave at once, in order."""


def main(
    arguments: Sequence[str] | None = None,
    train: Train | None = None,
    *,
    idle: float = IDLE_SECONDS,
    teardown: float = TEARDOWN_SECONDS,
) -> int:
    """Run the worker of one run folder to its end; returns the exit code (0: finished or stopped as asked).
    `train` is `workbench.train.grpo.train` unless given."""
    parser = argparse.ArgumentParser(prog="python -P -m workbench.worker", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--token", required=True)
    parser.add_argument("--warm-start", action="store_true")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    faulthandler.enable()
    folder = RunFolder(options.run_dir)
    team = _team(folder)
    if team > 1:
        torchrun.exit_with_torchrun()
        if torchrun.rank():
            return _lend_a_hand(folder, options.token)
    sole = _sole_worker(folder)
    if sole is None:
        print(f"Run {folder.id} already has a worker; this second one leaves.", file=sys.stderr)
        return 3
    with sole, Control(folder, _first_status(folder, options.token)) as control:
        who = identity.current(options.token)
        control.warm_start = options.warm_start
        control.on_overdue = lambda: _force_end(control, who)
        _handle_signals(control, team)
        state, reason = _outcome(folder, control, train, idle)
        control.end(state, reason)
        code = int(state == "failed")
        _leave_within(teardown, who, code)
    return code


def _team(folder: RunFolder) -> int:
    """How many processes train this run."""
    return folder.config().nproc if folder.about().get("kind") != "probe" else 1


def _lend_a_hand(folder: RunFolder, token: str) -> int:
    """A worker that is not the run's own: it waits, without torch, until that one has its device, and then does what it asks."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (status := folder.status()).get("token") != token or status.get("state") in ("starting", "queued"):
        time.sleep(lease.POLL_SECONDS)
    if status["state"] not in ENDED:
        try:
            importlib.import_module("workbench.train.distributed.follower").serve(folder)
        except Exception as error:  # the border of a process
            _record_error(folder, error)
            return 1
    return 0


def _outcome(folder: RunFolder, control: Control, train: Train | None, idle: float) -> tuple[State, str]:
    """Everything between the first and the last word; no exception leaves it."""
    try:
        finished = _work(folder, control, train, idle)
        return ("finished", "") if finished else ("stopped", control.stop_reason)
    except Ended:
        return (
            "stopped",
            "Ended at once, inside a step: a second request to end came before the step was through.",
        )
    except BaseException as error:
        # What ended another process of this run is the cause; that it is gone is all that is known here.
        return "failed", _record_error(folder, error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the last word is being said


def _work(folder: RunFolder, control: Control, train: Train | None, idle: float) -> bool:
    """Whether the run reached its end by itself."""
    config = folder.config()
    for name, value in local.thread_variables(config.threads).items():
        os.environ.setdefault(name, value)
    if folder.about().get("kind") == "probe":
        return _serve(config, folder, control, idle)
    control.status.steps = config.steps
    if not _take_device(config, folder, control):
        return False
    if train is None:
        # Torch comes in here and not before: a waiting worker stays small.
        train = partial(
            importlib.import_module("workbench.train.grpo").train, probe_handler=probes.handler_for_run
        )
    control.running()
    train(config, folder, control)
    return not control.stop_reason or control.status.step >= config.steps


def _take_device(config: RunConfig, folder: RunFolder, control: Control) -> bool:
    """Queue for the device and keep it as long as this process: its memory is freed no earlier. False:
    stopped while waiting."""
    held = lease.acquire(
        lease.device_kind(config.device),
        folder.root,
        folder.id,
        give_up=lambda: control.stop_requested,
        on_wait=lambda waiting: control.queued(waiting.ahead),
    )
    if held is None:
        return False
    control.lease = held
    control.status.device = held.device
    if held.device.startswith("cuda"):  # this process sees one device, and calls it cuda:0
        os.environ["CUDA_VISIBLE_DEVICES"] = lease.visible_cuda()[int(held.device.partition(":")[2])]
    control.status.state, control.status.reason = "starting", ""
    control.phase("import")
    return True


def _serve(config: RunConfig, folder: RunFolder, control: Control, idle: float) -> bool:
    """A bench worker: answers probes until nobody has asked for a while, or somebody waits for the device it
    holds."""
    with Writer(folder, config) as record:
        control.record_to(record.event)
        bench = probes.ProbeContext(
            config, folder, control, take_device=lambda asked: _take_device(asked, folder, control)
        )
        control.running()
        last = time.monotonic()
        while not control.stop_requested and time.monotonic() - last < idle:
            control.phase("idle")
            for command in control.poll():
                probes.reply(bench, command)
                last = time.monotonic()
            if control.lease is not None and lease.waiting(folder.root, control.status.device):
                break
            time.sleep(0.1)
    return not control.stop_reason


# -- signals and ends --------------------------------------------------------------------------------------


def _sole_worker(folder: RunFolder) -> IO[str] | None:
    """The run's worker lock, held as long as this process; None where another worker holds it."""
    file = (folder.path / "worker.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _first_status(folder: RunFolder, token: str) -> Status:
    before = folder.status()
    who, now = identity.current(token), time.time()
    return Status(
        state="starting",
        phase="start",
        step=int(before.get("step") or 0),
        steps=int(before.get("steps") or 0),
        pid=who.pid,
        create_time=who.create_time,
        boot_id=who.boot_id,
        token=token,
        heartbeat=now,
        progress_at=now,
        started=float(before.get("started") or now),
        earlier=float(before.get("earlier") or 0.0),
        oom_kills=oom_kills(),
    )


def _handle_signals(control: Control, team: int = 1) -> None:
    """TERM once: end at the next boundary. TERM again, or because another of the run's processes is gone: end now. Terminals
    that close and Ctrl-C elsewhere do not reach us."""
    if threading.current_thread() is not threading.main_thread():
        return
    agent = os.getppid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if team > 1 and (problem := torchrun.missing(team, agent)):
            raise RunError(problem)
        if control.stop_reason:
            raise Ended
        control.request_stop("The process was asked to end (SIGTERM).")

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _force_end(control: Control, who: identity.Identity) -> None:
    """The stop did not come through in time: say so, take the children along, and go."""
    faulthandler.dump_traceback()
    control.end("stopped", "Stopped by force: the step did not come to an end in time.")
    identity.kill_process_tree(who, include_worker=False)
    os._exit(0)


def _leave_within(seconds: float, who: identity.Identity, code: int) -> None:
    """The last word is said; a library that hangs while shutting down must not keep the process or its
    children."""

    def leave() -> None:
        print(
            f"Still here {seconds:.0f} s after the end of the run; leaving by force.",
            file=sys.stderr,
            flush=True,
        )
        identity.kill_process_tree(who, include_worker=False)
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def _record_error(folder: RunFolder, error: BaseException) -> str:
    """The whole traceback for the log, and error.json for those who look; returns what the page shows. The first of a run's
    processes to fail is the one that counts."""
    text = redact_text("".join(traceback.format_exception(error)))
    print(text, file=sys.stderr, flush=True)
    report = {
        "type": type(error).__name__,
        "message": str(error),
        "user": isinstance(error, WorkbenchError),
        "traceback": text,
        "time": time.time(),
    }
    sentence = _sentence(error)
    try:
        if folder.error_path.exists():
            return str(json.loads(folder.error_path.read_text())["sentence"])
        write_json(folder.error_path, redact({**report, "sentence": sentence}))
    except (OSError, ValueError, KeyError) as failure:
        print(f"error.json could not be written: {failure}", file=sys.stderr, flush=True)
    return sentence


def _sentence(error: BaseException) -> str:
    """What the page shows: a user's mistake in its own words, anything else with its type."""
    text = redact_text(str(error))
    if isinstance(error, WorkbenchError):
        return text
    if isinstance(error, MemoryError):
        return "Out of memory. Lower micro_batch_tokens, prompts_per_step or max_completion_length."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
