"""The worker process from its start to its final status: identity, queue for the device, training or probes, outcome.

`python -P -m workbench.worker RUN_DIR --token T`. In: a run folder. Out: the same folder, with everything the
run leaves behind. Torch is imported only after the device is held, so a queued run costs next to nothing.
"""

import argparse
import faulthandler
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from workbench.core.config import RunConfig
from workbench.launch import identity, lease, local, torchrun
from workbench.launch.watch import oom_kills
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.status import ENDED, State, Status
from workbench.record.writer import Writer
from workbench.worker import probes, signals
from workbench.worker.error_report import record_error

Train = Callable[[RunConfig, RunFolder, Control], object]
IDLE_SECONDS = 300.0
"""A probe worker without commands ends after this, which frees its device."""
TEARDOWN_SECONDS = 20.0
"""How long libraries may take to shut down after the final status is written."""


def main(
    arguments: Sequence[str] | None = None,
    train: Train | None = None,
    *,
    idle: float = IDLE_SECONDS,
    teardown: float = TEARDOWN_SECONDS,
) -> int:
    """Run the worker of one run folder to its end; returns the exit code (0: finished or stopped as requested).
    `train` is `workbench.train.grpo.train` unless given."""
    parser = argparse.ArgumentParser(prog="python -P -m workbench.worker", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--token", required=True)
    parser.add_argument("--warm-start", action="store_true")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    faulthandler.enable()
    folder = RunFolder(options.run_dir)
    nproc = torchrun.process_count(folder)
    if nproc > 1:
        torchrun.exit_with_torchrun()
        if torchrun.rank():
            return _run_rank(folder, options.token)
    lock = lease.try_lock(folder.path / "worker.lock")  # held as long as this process
    if lock is None:
        print(f"Run {folder.id} already has a worker; this second one leaves.", file=sys.stderr)
        return 3
    with lock, Control(folder, _first_status(folder, options.token)) as control:
        who = identity.current(options.token)
        control.warm_start = options.warm_start
        control.on_overdue = lambda: signals.force_end(control, who)
        signals.handle_signals(control, nproc)
        state, reason = _outcome(folder, control, train, idle)
        control.end(state, reason)
        code = int(state == "failed")
        signals.exit_within(teardown, who, code)
    return code


def _first_status(folder: RunFolder, token: str) -> Status:
    """This process, with the progress that the launcher noted."""
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


def _run_rank(folder: RunFolder, token: str) -> int:
    """A rank other than 0: wait, without torch, until rank 0 has the device, then work for it until it ends."""
    signals.ignore_terminal()
    while (status := folder.status()).get("token") != token or status.get("state") in ("starting", "queued"):
        time.sleep(lease.POLL_SECONDS)
    if status["state"] not in ENDED:
        try:
            importlib.import_module("workbench.train.distributed.follower").serve(folder)
        except Exception as error:  # the border of a process
            record_error(folder, error)
            return 1
    return 0


def _outcome(folder: RunFolder, control: Control, train: Train | None, idle: float) -> tuple[State, str]:
    """Do the run's work; returns the final state and its reason. No exception leaves this."""
    try:
        finished = _work(folder, control, train, idle)
        return ("finished", "") if finished else ("stopped", control.stop_reason)
    except signals.EndNow:
        return (
            "stopped",
            "Ended at once, inside a step: a second request to end came before the step was through.",
        )
    except BaseException as error:
        # Before anything is written: torchrun asks the remaining ranks to end as soon as one is gone, and an exception out of that
        # handler would leave this function, so that the run looked crashed instead of failed.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return "failed", record_error(folder, error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the final status is about to be written


def _work(folder: RunFolder, control: Control, train: Train | None, idle: float) -> bool:
    """Train, or reply to probes; whether the run reached its end by itself."""
    config = folder.config()
    for name, value in local.thread_variables(config.threads).items():
        os.environ.setdefault(name, value)
    if folder.about().get("kind") == "probe":
        return _serve_probes(config, folder, control, idle)
    control.status.steps = config.steps
    if not _take_device(config, folder, control):
        return False
    if train is None:
        # Torch is imported here and not before: a waiting worker stays small.
        grpo = importlib.import_module("workbench.train.grpo")
        train = partial(grpo.train, probe_handler=probes.handler_for_run)
    control.running()
    train(config, folder, control)
    return not control.stop_requested or control.status.step >= config.steps


def _take_device(config: RunConfig, folder: RunFolder, control: Control) -> bool:
    """Queue for the device and keep it as long as this process: its memory is freed no earlier. False:
    stopped while waiting."""
    held = lease.acquire(
        lease.device_kind(config.device),
        folder.root,
        folder.id,
        give_up=lambda: control.stop_requested,
        on_wait=control.queued,
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


def _serve_probes(config: RunConfig, folder: RunFolder, control: Control, idle: float) -> bool:
    """A probe worker: reply to probes until none has come for `idle` seconds, or a run waits for the device it holds."""
    with Writer(folder, config) as record:
        control.record_to(record.event)
        context = probes.ProbeContext(
            config, folder, control, take_device=lambda wanted: _take_device(wanted, folder, control)
        )
        control.running()
        last = time.monotonic()
        while not control.stop_requested and time.monotonic() - last < idle:
            control.phase("idle")
            for command in control.poll():
                probes.reply(context, command)
                last = time.monotonic()
            if control.lease is not None and lease.waiting(folder.root, control.status.device):
                break
            time.sleep(0.1)
    return not control.stop_requested
