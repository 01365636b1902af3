"""Options that several commands share, and those of `workbench run`, made from the one definition of the settings.

In: `config.settings()`. Out: a signature that the command line reads, help and groups included.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from workbench.core.config import settings
from workbench.core.setting import SECTIONS, SettingInfo

DEFAULT_ROOT = Path("runs")
Root = Annotated[Path, Parameter(name="--runs", help="Folder that holds the runs.")]
AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="One JSON value as the last line of standard output.")
]
RunName = Annotated[str, Parameter(help="Id of a run below --runs, or the path of a run folder.")]
_TRUTHS = {"true", "false", "yes", "no", "on", "off", "1", "0"}


def with_values(arguments: Sequence[str]) -> list[str]:
    """`--use-peft true` as the one word `--use-peft=true`, so that a switch takes a value like every other
    setting."""
    switches = {f"--{info.name}".replace("_", "-") for info in settings() if info.kind == "bool"}
    found: list[str] = []
    for word in arguments:
        if found and found[-1].replace("_", "-") in switches and word.lower() in _TRUTHS:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def signature() -> inspect.Signature:
    """`run`'s options: its own, then every setting, core ones first, grouped as in the form. All settings are
    text that RunConfig reads; what is not given stays with the preset."""
    own = [
        _option("preset", str | None, "A shipped preset, or a .toml file. Without one: embedded."),
        _option("runs", Path, "Folder that holds the runs.", DEFAULT_ROOT),
        _option(
            "reward",
            list[str] | None,
            "name=weight, once for each reward: --reward correct=1 --reward mine.py:short=0.2",
            negative="",
        ),
        _option("detach", bool, "Return as soon as the run has started.", False, negative=""),
        _option("wait", bool, "Follow without drawing.", False, negative=""),
        _option("json", bool, "One JSON object as the last line of standard output.", False, negative=""),
    ]
    core = Group("Settings", sort_key=1)
    advanced = {
        section: Group(f"Advanced: {title}", sort_key=2 + place)
        for place, (section, title) in enumerate(SECTIONS.items())
    }
    named = sorted(settings(), key=lambda info: not info.core)
    return inspect.Signature(
        [*own, *(_setting_option(info, core if info.core else advanced[info.section]) for info in named)]
    )


def _setting_option(info: SettingInfo, group: Group) -> inspect.Parameter:
    default = (
        ",".join(f"{spec.name}={spec.weight:g}" for spec in info.default)
        if info.kind == "rewards"
        else info.default
    )
    choices = f" One of {', '.join(map(str, info.choices))}." if info.choices else ""
    text = f"{info.help}{choices} Default {default}." if default is not None else f"{info.help}{choices}"
    return _option(info.name, bool | None if info.kind == "bool" else str | None, text, group=group)


def _option(name: str, kind: Any, text: str, default: Any = None, **about: Any) -> inspect.Parameter:
    annotation = Annotated[kind, Parameter(help=text, show_default=False, **about)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def print_json(value: Any) -> None:
    """One JSON value as a line of standard output."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str), flush=True)
