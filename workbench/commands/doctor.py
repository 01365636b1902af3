"""The command doctor: a run that does not learn, this machine, the sandbox, the theory."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from workbench import api, launch
from workbench.commands.options import DEFAULT_ROOT, AsJson, Root, print_json
from workbench.core.errors import ConfigError
from workbench.diagnose import doctor as examine
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader


def doctor(
    run: Annotated[str | None, Parameter(help="A run to examine; without one, this machine.")] = None,
    *,
    sandbox: Annotated[
        bool, Parameter(negative="", help="Attack the sandbox with everything there is.")
    ] = False,
    programs: Annotated[
        Path | None, Parameter(help="With --sandbox: run the programs of this folder instead.")
    ] = None,
    theory: Annotated[
        bool, Parameter(negative="", help="Compare closed forms with measured updates.")
    ] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """What is wrong with a run and why its loss is what it is; without one, what this machine can do, and whether the
    workbench's own promises hold on it."""
    if run is not None:
        return _examine(record.find(run, runs), json)
    if programs is not None and not sandbox:
        raise ConfigError("--programs goes with --sandbox.")
    found: Any
    if sandbox:  # imported here, because no other command needs them
        from workbench.sandbox import doctor as attacks  # noqa: PLC0415

        found = attacks.run_suite() if programs is None else attacks.run_programs(programs)
    elif theory:
        from workbench.diagnose import theory_check  # noqa: PLC0415

        found = [row._asdict() for row in theory_check.run()]
    else:
        found = api.machine(runs)
    if json:
        print_json(found)
    else:
        Console().print_json(data=found)
    return 0


def _examine(folder: RunFolder, as_json: bool) -> int:
    """Print what is wrong with a run."""
    now = launch.state(folder)
    found = examine.report(Reader(folder), now.state, now.reason, over=now.over)
    if as_json:
        print_json(found)
    else:
        print(examine.words(found).replace(" RUN", f" {folder.id}"))
    return 0
