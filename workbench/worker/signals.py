"""How a worker is made to end from outside: SIGTERM, a stop that is overdue, a shutdown that hangs.

In: signals, and the control of the run. Out: a requested stop, `EndNow` inside the loop, or the end of the process with
everything that it started.
"""

import faulthandler
import os
import signal
import sys
import threading
from types import FrameType

from workbench.core.errors import RunError
from workbench.launch import identity, torchrun
from workbench.record.control import Control


class EndNow(BaseException):
    """A second request to end came while the first was not yet carried out: leave at once, through the loop's cleanup."""


def handle_signals(control: Control, nproc: int = 1) -> None:
    """SIGTERM once: end at the next step boundary. A second time: `EndNow`. Where another of the run's `nproc` processes is
    gone: RunError. Closed terminals (SIGHUP) and Ctrl-C elsewhere (SIGINT) are ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    agent = os.getppid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if nproc > 1 and (problem := torchrun.lost_processes(nproc, agent)):
            raise RunError(problem)
        if control.stop_requested:
            raise EndNow
        control.request_stop("The process was asked to end (SIGTERM).")

    signal.signal(signal.SIGTERM, terminate)
    ignore_terminal()


def ignore_terminal() -> None:
    """Go on when the terminal is closed, or Ctrl-C is pressed in it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def force_end(control: Control, who: identity.Identity) -> None:
    """A stop was not carried out in time: write the final status, kill the children, and exit."""
    faulthandler.dump_traceback()
    control.end("stopped", "Stopped by force: the step did not come to an end in time.")
    identity.kill_process_tree(who, include_worker=False)
    os._exit(0)


def exit_within(seconds: float, who: identity.Identity, code: int) -> None:
    """The final status is written; a library that hangs while shutting down must not keep the process or its
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
