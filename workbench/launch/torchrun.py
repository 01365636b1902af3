"""Several processes for one run: the command that starts them, and what each must know of the others.

torchrun starts `nproc` workers and ends them all when one dies. Rank 0 is the run's worker; the others only lend it a hand.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

import psutil

LOOK_SECONDS = 1.0


def command(worker: Sequence[str], nproc: int) -> list[str]:
    """What to start: the worker itself, or torchrun with `nproc` of it, on the loopback address only and never restarted."""
    if nproc == 1:
        return list(worker)
    return [
        *(sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
        *(f"--nproc-per-node={nproc}", "--max-restarts=0", "--no-python", *worker),
    ]


def rank() -> int:
    """This worker's number among those that torchrun started."""
    return int(os.environ.get("RANK", "0"))


def exit_with_torchrun() -> None:
    """A worker whose torchrun is gone would go on unwatched: it gets SIGTERM within a second."""
    agent = os.getppid()

    def watch() -> None:
        while os.getppid() == agent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="torchrun-watch", daemon=True).start()


def missing(nproc: int, agent: int) -> str:
    """Why the processes of this run cannot go on together, in a sentence; '' where all are there."""
    if os.getppid() != agent:
        return "torchrun, which started this run's processes, is gone; the run ends."
    living = 0
    for process in psutil.Process(agent).children():
        try:
            living += process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
    if living >= nproc:
        return ""
    return (
        f"{nproc - living} of the run's {nproc} training processes died, so the others end too: worker.log holds its last words. "
        "Resume from the last checkpoint."
    )
