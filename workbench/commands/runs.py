"""The commands run, list, show and settings: start a run and follow it, see what there is.

Every setting of RunConfig is an option of `run`, made from its one definition.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from workbench import api, launch
from workbench.commands import options
from workbench.commands.options import DEFAULT_ROOT, AsJson, Root, RunName, print_json
from workbench.core import config
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.launch import preflight
from workbench.launch.follow import follow, summary
from workbench.record import folder as record
from workbench.record.reader import Reader


def run(
    *,
    preset: str | None = None,
    runs: Path = DEFAULT_ROOT,
    reward: list[str] | None = None,
    detach: bool = False,
    wait: bool = False,
    json: bool = False,
    **settings: Any,
) -> int:
    """Start a run in the background and follow it. Ctrl-C ends only the following."""
    values = {name: value for name, value in settings.items() if value is not None}
    if reward:
        values["rewards"] = reward
    report = preflight.check(RunConfig.build(preset, values))
    for warning in report.warnings:
        print(f"Note: {warning}", file=sys.stderr)
    folder = preflight.start_checked(report, runs)
    print(f"Run {folder.id} has started in {folder.path}", file=sys.stderr)
    if detach:
        if json:
            print_json({"run": folder.id, "run_dir": str(folder.path), "state": launch.state(folder).state})
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
    if json:
        print_json(summary(folder))
    return 0 if now.state == "finished" else 1


run.__signature__ = options.signature()  # type: ignore[attr-defined]


def list_settings(*, json: AsJson = False) -> int:
    """Every setting with its default and meaning."""
    if json:
        print_json(
            [
                {**info._asdict(), "default": RunConfig().model_dump(mode="json")[info.name]}
                for info in config.settings()
            ]
        )
        return 0
    table = Table("setting", "default", "live", "meaning")
    for info in config.settings():
        table.add_row(
            info.name,
            str(RunConfig().model_dump(mode="json")[info.name]),
            "live" if info.live else "",
            info.help,
        )
    Console().print(table)
    return 0


def list_runs(
    *,
    everything: Annotated[bool, Parameter(name="--all", negative="", help="Probe workers too.")] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """All runs, newest first."""
    found = [one for one in launch.runs(runs) if everything or one.kind != "probe"]
    if sentence := record.left_out_sentence(runs):
        print(sentence, file=sys.stderr)
    if json:
        print_json([one.json() for one in found])
        return 0
    if not found:
        print(f"No runs in {runs} yet. Start one with: workbench run", file=sys.stderr)
        return 0
    table = Table("run", "state", "step", "reason")
    for one in found:
        table.add_row(one.id, one.state, f"{one.step}/{one.steps}", one.stalled or one.reason)
    Console().print(table)
    return 0


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
    """What a run is and how far it came; with --step and --group the samples of one group."""
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
        print_json(
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
        print_json(found)
    elif group is None:
        table = Table("k", "prompt", "reference answer", "mean reward", "std", "right", "dead")
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


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
