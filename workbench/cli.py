"""The command line: `python -m workbench COMMAND`.

Every setting of RunConfig is an option of `run`, made from its one definition. Messages go to standard error;
with --json the last line of standard output is one JSON value. Exit codes: 0 done, 1 the run did not finish,
2 something the user can put right.
"""

import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from workbench import api, bench, finding, judging, launch, options, preflight, steer
from workbench.config import RunConfig, settings
from workbench.diagnose import doctor as examine
from workbench.errors import ConfigError, WorkbenchError
from workbench.follow import follow, summary
from workbench.options import DEFAULT_ROOT, AsJson, Root, RunName
from workbench.options import print_json as _print_json
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

app = App(name="workbench", help="See what GRPO is doing to a language model, and steer it.")


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
    except KeyboardInterrupt:
        return 130
    return 2


# -- run ---------------------------------------------------------------------------------------------------


def run(
    preset: str | None,
    runs: Path,
    reward: list[str] | None,
    detach: bool,
    wait: bool,
    as_json: bool,
    given: dict[str, Any],
) -> int:
    """See `_run`."""
    values = {name: value for name, value in given.items() if value is not None}
    if reward:
        values["rewards"] = reward
    report = preflight.check(RunConfig.build(preset, values))
    for warning in report.warnings:
        print(f"Note: {warning}", file=sys.stderr)
    folder = preflight.start_checked(report, runs)
    print(f"Run {folder.id} has started in {folder.path}", file=sys.stderr)
    if detach:
        if as_json:
            _print_json({"run": folder.id, "run_dir": str(folder.path), "state": launch.state(folder).state})
        return 0
    try:
        now = follow(folder, draw=not wait)
    except KeyboardInterrupt:
        print(f"\nThe run goes on. Look at it with: workbench show {folder.id}", file=sys.stderr)
        return 130
    if now.state != "finished":
        print(f"Run {now.id} {now.state}: {now.reason}", file=sys.stderr)
        for line in now.log[-10:]:
            print(f"  {line}", file=sys.stderr)
    if as_json:
        _print_json(summary(folder))
    return 0 if now.state == "finished" else 1


def _run(**given: Any) -> int:
    """Start a run in the background and follow it. Ctrl-C ends only the following."""
    preset, root = given.pop("preset", None), given.pop("runs", DEFAULT_ROOT)
    reward = given.pop("reward", None)
    detach, wait, as_json = (given.pop(name, False) for name in ("detach", "wait", "json"))
    return run(preset, root, reward, detach, wait, as_json, given)


_run.__signature__ = options.signature()  # type: ignore[attr-defined]
app.command(_run, name="run")


@app.command(name="settings")
def list_settings(*, json: AsJson = False) -> int:
    """Every setting with its default and meaning."""
    if json:
        _print_json(
            [
                {**info._asdict(), "default": RunConfig().model_dump(mode="json")[info.name]}
                for info in settings()
            ]
        )
        return 0
    table = Table("setting", "default", "live", "meaning")
    for info in settings():
        table.add_row(
            info.name,
            str(RunConfig().model_dump(mode="json")[info.name]),
            "live" if info.live else "",
            info.help,
        )
    Console().print(table)
    return 0


# -- look --------------------------------------------------------------------------------------------------


@app.command(name="list")
def list_runs(
    *,
    everything: Annotated[bool, Parameter(name="--all", negative="", help="Benches too.")] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """All runs, newest first."""
    found = [one for one in launch.runs(runs) if everything or one.kind != "bench"]
    if json:
        _print_json([one.json() for one in found])
        return 0
    if not found:
        print(f"No runs in {runs} yet. Start one with: workbench run", file=sys.stderr)
        return 0
    table = Table("run", "state", "step", "reason")
    for one in found:
        table.add_row(one.id, one.state, f"{one.step}/{one.steps}", one.stalled or one.reason)
    Console().print(table)
    return 0


@app.command
def show(
    run: RunName,
    *,
    step: int | None = None,
    group: int | None = None,
    kind: Literal["train", "eval"] = "train",
    mode: Literal["sampled", "greedy"] | None = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """What a run is and how far it came; with --step and --group the answers of one group."""
    folder = record.find(run, runs)
    if group is not None and step is None:
        raise ConfigError(
            "--group needs --step: which step's group? The newest is shown by `workbench show RUN`."
        )
    if step is not None:
        _show_step(Reader(folder), step, group, kind, mode, json)
        return 0
    now, one = launch.state(folder), api.Run(folder)
    if json:
        readable = now.state != "damaged"
        final = one.final_model
        _print_json(
            {
                **now.json(),
                "config": one.config.model_dump(mode="json") if readable else None,
                "final_model": str(final) if final else None,
                "summary": summary(folder) if readable else None,
            }
        )
        return 0
    print(
        f"{now.id}: {now.state}, step {now.step} of {now.steps}" + (f" ({now.reason})" if now.reason else "")
    )
    if now.stalled:
        print(now.stalled)
    for name, value in summary(folder).items():
        if name.startswith(("heldout", "mean_length", "seconds")) and value is not None:
            print(f"  {name.replace('_', ' ')}: {value:.3f}")
    for line in now.log:
        print(f"  | {line}")
    return 0


def _show_step(reader: Reader, step: int, group: int | None, kind: Any, mode: Any, as_json: bool) -> None:
    if group is None:
        found: Any = reader.groups(step, kind, mode)
    else:
        found = reader.group(step, group, kind, mode)
    if as_json:
        _print_json(found)
    elif group is None:
        table = Table("k", "prompt", "answer", "mean reward", "std", "right", "dead")
        for row in found:
            mean, std = (_figure(row[name]) for name in ("reward_mean", "reward_std"))
            right = "" if row["right"] is None else str(row["right"])
            table.add_row(str(row["k"]), row["question"], str(row["answer"]), mean, std, right, row["dead"])
        Console().print(table)
    else:
        print(found["prompt"])
        for one in found["samples"]:
            figures = f"reward {_figure(one['reward'])}  advantage {_figure(one['advantage'])}"
            print(f"-- {figures}  {one['length']} tokens, {one['finish_reason']}")
            print(one["text"])


app.command(finding.search)


# -- steer -------------------------------------------------------------------------------------------------


@app.command
def pause(run: RunName, *, runs: Root = DEFAULT_ROOT, json: AsJson = False) -> int:
    """Wait before the next step; the device stays taken."""
    return _tell(run, runs, "pause", {}, json)


@app.command
def resume(
    run: RunName,
    *,
    set: Annotated[
        list[str] | None,
        Parameter(negative="", consume_multiple=True, help="name=value: change this before the next step."),
    ] = None,
    yes: Annotated[bool, Parameter(negative="", help="Make the changes of --set without asking.")] = False,
    warm_start: Annotated[
        bool,
        Parameter(negative="", help="Go on although something was lost or changed; the result differs then."),
    ] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Go on: after a pause, or in a new process from the last whole checkpoint, exactly as if it had never stopped."""
    folder = record.find(run, runs)
    orders = steer.orders(folder, pairs(set)) if set else []
    if orders and not yes and not _confirmed(Reader(folder).live(), orders[-1].args):
        return 2
    if not launch.state(folder).over:
        for order in orders:
            launch.ask(folder, *order)
        return _tell(run, runs, "resume", {}, json)
    now = launch.resume(folder, commands=orders, warm=warm_start)
    if json:
        _print_json(
            {
                "run": now.id,
                "state": now.state,
                "step": now.step,
                "ok": True,
                "text": f"goes on from step {now.step}",
            }
        )
    else:
        print(f"Run {now.id} goes on.")
    return 0


def _confirmed(before: dict[str, Any], changes: dict[str, Any]) -> bool:
    """Show what would change, and ask. Where nobody can answer: no."""
    for name, value in changes.items():
        print(f"  {name}: {before[name]} -> {value}", file=sys.stderr)
    if not sys.stdin.isatty():
        print("Nothing was done. Add --yes to go on with these changes.", file=sys.stderr)
        return False
    print("Go on with these changes? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@app.command
def checkpoint(run: RunName, *, runs: Root = DEFAULT_ROOT, json: AsJson = False) -> int:
    """Write a checkpoint at the next step boundary."""
    return _tell(run, runs, "checkpoint", {}, json)


@app.command
def pin(
    run: RunName,
    *,
    step: Annotated[int, Parameter(help="The checkpoint after this many steps.")],
    off: Annotated[bool, Parameter(negative="", help="Let it go again.")] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Keep a checkpoint for good, however many come after it."""
    folder = record.find(run, runs)
    checkpoints.pin(folder, step, not off)
    if json:
        _print_json({"run": folder.id, "pinned": sorted(checkpoints.pinned(folder))})
    return 0


@app.command
def stop(run: RunName, *, grace: float | None = None, runs: Root = DEFAULT_ROOT, json: AsJson = False) -> int:
    """End a run after its step, with a checkpoint; by force once --grace seconds are over. A queued run is
    cancelled."""
    now = launch.stop(record.find(run, runs), grace)
    if json:
        _print_json(now.json())
    else:
        print(f"Run {now.id}: {now.state}, step {now.step} of {now.steps}")
    return 0


@app.command(name="set")
def set_live(
    run: RunName,
    *changes: Annotated[str, Parameter(help="name=value, for example beta=0.02.")],
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Change settings of a living run from its next step on."""
    folder = record.find(run, runs)
    return _answer(folder, steer.ask(folder, pairs(changes)), json)


def pairs(changes: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as a dict. Raises ConfigError."""
    if not changes or any("=" not in change for change in changes):
        raise ConfigError(
            "Write what to change as name=value, for example: workbench set RUN beta=0.02 learning_rate=1e-5"
        )
    return {
        name.strip().replace("-", "_"): value
        for name, _, value in (change.partition("=") for change in changes)
    }


@app.command
def fork(
    run: RunName,
    *,
    step: Annotated[
        int, Parameter(help="From its last checkpoint at or before this step; 0 is the base model.")
    ],
    set: Annotated[
        list[str] | None,
        Parameter(negative="", consume_multiple=True, help="name=value, for example beta=0.1."),
    ] = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Start a new run where another one stood, with other settings. It goes on counting its steps."""
    folder = record.find(run, runs)
    begin = steer.origin(folder, step)
    child = steer.fork(folder, step, pairs(set) if set else {})
    if json:
        parent = {"run": folder.id, "step": begin.step}
        _print_json({"run": child.id, "run_dir": str(child.path), "parent": parent})
    else:
        where = f"step {begin.step}" if begin.step else "the base model"
        print(f"Run {child.id} goes on from {where} of {folder.id}.")
    return 0


def _tell(run: str, root: Path, command: str, args: dict[str, Any], as_json: bool) -> int:
    folder: RunFolder = record.find(run, root)
    return _answer(folder, launch.ask(folder, command, args), as_json)


def _answer(folder: RunFolder, answer: dict[str, Any], as_json: bool) -> int:
    if as_json:
        _print_json({"run": folder.id, **answer})
    else:
        print(answer["text"], file=sys.stdout if answer["ok"] else sys.stderr)
    return 0 if answer["ok"] else 2


# -- models, dashboard, doctor -----------------------------------------------------------------------------


@app.command
def sample(
    run: RunName,
    *,
    prompt: Annotated[str, Parameter(help="A question as a person would write it.")],
    n: Annotated[int, Parameter(name=["--count", "-n"], help="How many answers.")] = 4,
    step: Annotated[int | None, Parameter(help="A checkpoint instead of the final model.")] = None,
    base: Annotated[bool, Parameter(negative="", help="Beside them the base model's answers.")] = False,
    temperature: float | None = None,
    seed: int | None = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Fresh answers of a run's model to a prompt of your own."""
    given = {"temperature": temperature, "seed": seed}
    sampling = {name: value for name, value in given.items() if value is not None}
    found = bench.sample(record.find(run, runs), prompt, n, step=step, base=base, **sampling)
    if json:
        _print_json(found)
        return 0
    for title, samples in ((found["model"], found["samples"]), ("base model", found.get("base", []))):
        for one in samples:
            print(f"-- {title}: {one['length']} tokens, {one['finish_reason']}")
            print(one["text"])
    return 0


app.command(judging.rescore)
app.command(judging.rate)
app.command(judging.ratings)


@app.command
def export(
    run: RunName,
    *,
    model: Annotated[Path | None, Parameter(help="Folder to write; must not hold anything yet.")] = None,
    html: Annotated[
        Path | None, Parameter(help="A page of the run in one file, that opens anywhere.")
    ] = None,
    max_mb: Annotated[float, Parameter(help="With --html: about how large the file may become.")] = 12.0,
    step: Annotated[int | None, Parameter(help="A checkpoint instead of the final model.")] = None,
    merge: Annotated[bool, Parameter(negative="", help="Fold a LoRA adapter into the weights.")] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Write the trained model as a plain Hugging Face folder, or the run as a page in one file."""
    folder = record.find(run, runs)
    if (model is None) == (html is None):
        raise ConfigError(
            "Say what to export: --model FOLDER (the weights) or --html FILE (a page to look at)."
        )
    if html is not None:
        page = api.Run(folder).html(html, max_mb)
        print(page, file=sys.stderr)
    target = html if model is None else api.export(folder, model, step, merge)
    if json:
        _print_json({"html" if model is None else "model": str(target)})
    else:
        print(target)
    return 0


@app.command(name="app")
def dashboard(
    *,
    runs: Root = DEFAULT_ROOT,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, Parameter(help="Port; 7860 or the next free one.")] = None,
    token: Annotated[str | None, Parameter(help="This token instead of a random one.")] = None,
    no_token: Annotated[bool, Parameter(negative="", help="No token; only on this machine.")] = False,
    allow_host: Annotated[
        list[str] | None, Parameter(negative="", help="Another name that the dashboard answers to.")
    ] = None,
    read_only: Annotated[bool, Parameter(negative="", help="Look at runs; start and steer none.")] = False,
    open: Annotated[bool, Parameter(negative="", help="Open a browser.")] = False,
) -> int:
    """Open the dashboard."""
    # Gradio takes seconds to import; no other command pays for it.
    from workbench.view import server  # noqa: PLC0415

    server.serve(
        runs,
        host=host,
        port=port,
        token=token,
        use_token=not no_token,
        allow_hosts=allow_host or [],
        read_only=read_only,
        announce=_announce(open),
    )
    return 0


def _announce(open_browser: bool) -> Any:
    def announce(text: str) -> None:
        print(text, flush=True)
        address = next((word for word in text.split() if word.startswith("http://")), None)
        if open_browser and address:
            threading.Timer(1.0, webbrowser.open, [address]).start()

    return announce


@app.command
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
    # Each examination loads a room that nothing else here needs.
    if programs is not None and not sandbox:
        raise ConfigError("--programs goes with --sandbox.")
    found: Any
    if sandbox:
        from workbench.sandbox import doctor as attacks  # noqa: PLC0415

        found = attacks.run_suite() if programs is None else attacks.run_programs(programs)
    elif theory:
        from workbench.diagnose import theory_bench  # noqa: PLC0415

        found = [row._asdict() for row in theory_bench.run()]
    else:
        found = api.machine(runs)
    if json:
        _print_json(found)
    else:
        Console().print_json(data=found)
    return 0


def _examine(folder: RunFolder, as_json: bool) -> int:
    now = launch.state(folder)
    found = examine.report(Reader(folder), now.state, now.reason)
    if as_json:
        _print_json(found)
    else:
        print(examine.words(found).replace(" RUN", f" {folder.id}"))
    return 0


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
