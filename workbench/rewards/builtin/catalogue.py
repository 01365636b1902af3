"""Every reward that comes with the workbench, by name: the table over the files, one for each family."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from workbench.rewards.api.decorator import Example, declared
from workbench.rewards.api.signature import read_shape
from workbench.rewards.api.source import SourceText
from workbench.rewards.builtin import (
    answers,
    choice,
    countdown,
    formats,
    human,
    judge,
    language,
    learned,
    length,
    maths,
    programs,
    qa,
    remote,
    repetition,
    story,
    summary,
    translation,
)

FAMILIES: tuple[ModuleType, ...] = (
    answers,
    formats,
    maths,
    countdown,
    choice,
    qa,
    programs,
    length,
    repetition,
    language,
    summary,
    translation,
    story,
    learned,
    remote,
    judge,
    human,
)


class RewardInfo(NamedTuple):
    """What a user needs to know to choose a reward."""

    name: str
    title: str
    family: str
    about: str
    weakness: str
    example: Example | None
    """None where it takes a model or a server."""
    options: dict[str, Any]
    """Name and default of each."""
    needs: tuple[str, ...]
    """Columns the data must have; `answer` where it compares with the reference answer."""
    range: tuple[float, float]
    group_level: bool
    """Gets all completions of a group at once."""


def _describe(function: Callable[..., Any], family: str) -> RewardInfo:
    about = declared(function)
    assert about is not None and about.range is not None and function.__doc__
    shape = read_shape(function)
    parameters = inspect.signature(function).parameters
    return RewardInfo(
        name=about.name,
        title=about.title,
        family=family,
        about=" ".join(function.__doc__.split("\n\n")[0].split()),
        weakness=about.weakness,
        example=about.example,
        options={name: parameters[name].default for name in shape.takes if name not in shape.standard},
        needs=(("answer",) if "answer" in shape.needs else ()) + shape.columns(),
        range=about.range,
        group_level=shape.kind != "sample",
    )


def _functions() -> dict[str, tuple[Callable[..., Any], ModuleType]]:
    found = {}
    for module in FAMILIES:
        for value in vars(module).values():
            about = declared(value) if callable(value) else None
            if about is not None and value.__module__ == module.__name__:
                assert about.name not in found, f"two rewards are named {about.name}"
                found[about.name] = (value, module)
    return found


_BY_NAME = _functions()
REWARDS: dict[str, RewardInfo] = {
    name: _describe(function, module.__name__.rpartition(".")[2])
    for name, (function, module) in _BY_NAME.items()
}
"""All catalogue rewards, family after family."""


def function_of(name: str) -> Callable[..., Any]:
    """The function of a catalogue reward."""
    return _BY_NAME[name][0]


def source_of(name: str) -> SourceText:
    """The source of a catalogue reward: its family's file, which is saved with the run as own code is."""
    path = Path(str(_BY_NAME[name][1].__file__))
    return SourceText(path.read_bytes(), name, path.name, ours=True)
