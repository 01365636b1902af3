"""The fork-server: a small Python process that confines itself and then forks one guarded child for each job.

In: requests on a socket pair, {limits} with five descriptors (payload, stdin, stdout, stderr, result). Out:
{"pid"} with a pidfd when the job has started, {"status", "cpu", "maxrss", "stopped"} when it has ended. It
never reads a payload, so no job can find another one's code in the memory it inherits. When the parent's end
closes, the job is killed and the server ends.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
from typing import Any, NoReturn

from . import cleaning, guard, landlock, runner, watch

PRELOADED = """
bisect cmath collections copy dataclasses datetime decimal enum fractions functools heapq itertools math
operator random re statistics string typing
"""
"""Modules that short programs usually import: loaded once, inherited by every job."""

DESCRIPTORS = 5
WATCH_S = 0.025


def main(control_fd: int, base: str, paths: guard.Paths) -> None:
    """Serve jobs until the parent closes its end. The job folders lie in `base`."""
    control = socket.socket(fileno=control_fd)
    os.closerange(3, control_fd)
    os.closerange(control_fd + 1, 4096)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.umask(0o077)
    _offer_to_the_oom_killer()
    try:
        guard.confine_server(base, paths)
    except OSError as error:
        control.send(json.dumps({"failed": str(error)}).encode())
        return
    for name in PRELOADED.split():
        importlib.import_module(name)
    control.send(json.dumps({"ready": landlock.abi()}).encode())
    gc.collect()
    gc.freeze()  # children share these pages
    count = 0
    while True:
        count += 1
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 4096, DESCRIPTORS)
            if not message:
                return
            serve(control, json.loads(message), list(descriptors), os.path.join(base, f"job-{count}"), paths)
        except ConnectionError:  # the parent is gone
            return


def serve(
    control: socket.socket, request: dict[str, Any], descriptors: list[int], work: str, paths: guard.Paths
) -> None:
    """Fork one job, watch it to its end, report, and remove its folder."""
    caps = guard.Caps(*request["caps"])
    server = os.getpid()
    os.mkdir(work, 0o700)
    pid = os.fork()
    if pid == 0:
        _become_job(server, descriptors, work, paths, caps)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    try:
        socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [pidfd])
        stopped = _watch(control, pid, pidfd, work, caps)
        # The zombie still holds its number: whatever is left of its group goes before the number is free.
        _kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
        report = {
            "status": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "maxrss": usage.ru_maxrss * 1024,
            "stopped": stopped,
        }
        control.send(json.dumps(report).encode())
    finally:
        os.close(pidfd)
        cleaning.remove(work)


def _offer_to_the_oom_killer() -> None:
    """If the machine runs out of memory, a job goes before the trainer. Its children inherit this."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("800")
    except OSError:
        return


def _become_job(
    server: int, descriptors: list[int], work: str, paths: guard.Paths, caps: guard.Caps
) -> NoReturn:
    """The child: own session, own descriptors, guard, program. Never returns."""
    code = guard.GUARD_FAILED
    try:
        os.setsid()
        for target, descriptor in enumerate(_lifted(descriptors)):
            os.dup2(descriptor, target)
        os.closerange(DESCRIPTORS, 4096)
        os.chdir(work)
        guard.confine_job(server, work, paths, caps)
        code = 0
    except OSError as error:
        os.write(2, str(error).encode())
    finally:
        if code:
            os._exit(code)
    exit_now = os._exit  # the program may replace the name
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        payload = b"".join(iter(lambda: os.read(4, 1 << 20), b""))
        os.close(4)
        runner.run(payload)
    finally:
        exit_now(0)


def _lifted(descriptors: list[int]) -> list[int]:
    """Copies above the target range: dup2 onto 0-4 must not close a descriptor that is still wanted."""
    lifted = []
    for descriptor in descriptors:
        copies = [descriptor]
        while copies[-1] < DESCRIPTORS:
            copies.append(os.dup(copies[-1]))
        lifted.append(copies[-1])
    return lifted


def _watch(control: socket.socket, pid: int, pidfd: int, work: str, caps: guard.Caps) -> str | None:
    """Wait for the job's end, or kill it for what no rlimit counts; then the limit it passed."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        events = dict(poll.poll(WATCH_S * 1000))
        if pidfd in events:
            return None
        if control.fileno() in events:  # the parent is gone (or breaks the protocol): no job outlives it
            _kill_group(pid)
            return "parent"
        if watch.threads(pid) > caps.threads:
            reason = "threads"
        elif not watch.disk_is_within(pid, work, caps):
            reason = "disk"
        else:
            continue
        _kill_group(pid)
        select.select([pidfd], [], [])
        return reason


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # the group exists only once the child has come to its setsid
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
