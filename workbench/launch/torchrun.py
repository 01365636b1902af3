"""Several processes for one run: the command that starts them, and what each must know of the others.

torchrun starts `nproc` workers and ends them all when one dies. Rank 0 is the run's worker; the others take part in its
sampling and updates.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

import psutil

from workbench.record.folder import RunFolder

POLL_SECONDS = 1.0


def process_count(folder: RunFolder) -> int:
    """How many processes a run's worker consists of. Only training is shared out."""
    return folder.config().nproc if folder.about().get("kind", "train") == "train" else 1


def command(worker: Sequence[str], nproc: int) -> list[str]:
    """The command line to start: the worker itself, or torchrun with `nproc` of it, on the loopback address only and never
    restarted."""
    if nproc == 1:
        return list(worker)
    return [
        *(sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
        *(f"--nproc-per-node={nproc}", "--max-restarts=0", "--no-python", *worker),
    ]


def rank() -> int:
    """This process's rank among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def exit_with_torchrun() -> None:
    """Send this process SIGTERM within a second after its torchrun is gone: no process would end it with the others any more."""
    agent = os.getppid()

    def watch() -> None:
        while os.getppid() == agent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="torchrun-watch", daemon=True).start()


def lost_processes(nproc: int, agent: int) -> str:
    """Why the processes of this run cannot go on together, in a sentence; '' where all are alive. `agent`: pid of torchrun."""
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
        f"{nproc - living} of the run's {nproc} training processes died, so the others end too: worker.log says why. "
        "Resume from the last checkpoint."
    )
