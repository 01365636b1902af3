"""The command line: `python -m workbench COMMAND`. The commands themselves are in commands/.

Messages go to standard error; with --json the last line of standard output is one JSON value. Exit codes: 0 done,
1 the run did not finish, 2 something the user can put right.
"""

import os
import sys
from collections.abc import Callable, Sequence

import cyclopts

from workbench.commands import dashboard, doctor, models, options, rewards, runs, search, steering
from workbench.core.errors import WorkbenchError

COMMANDS: dict[str, Callable[..., int]] = {
    "app": dashboard.dashboard,
    "run": runs.run,
    "list": runs.list_runs,
    "show": runs.show,
    "search": search.search,
    "pause": steering.pause,
    "resume": steering.resume,
    "stop": steering.stop,
    "set": steering.set_live,
    "checkpoint": steering.checkpoint,
    "pin": steering.pin,
    "fork": steering.fork,
    "sample": models.sample,
    "export": models.export,
    "rescore": rewards.rescore,
    "rate": rewards.rate,
    "ratings": rewards.ratings,
    "doctor": doctor.doctor,
    "settings": runs.list_settings,
}
app = cyclopts.App(name="workbench", help="See what GRPO is doing to a language model, and steer it.")
for _name, _command in COMMANDS.items():
    app.command(_command, name=_name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    try:
        code = app(
            options.with_values(sys.argv[1:] if arguments is None else arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        return int(code or 0)
    except cyclopts.CycloptsError as error:
        print(error, file=sys.stderr)
    except WorkbenchError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 2
