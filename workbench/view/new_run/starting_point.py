"""What the New run form starts from: a shipped preset, or a checkpoint of a recorded run to fork, which a link names.

In: the value of the choice "Start from", or the query of a link. Out: settings to fill in, and the parent run.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RunError
from workbench.core.presets import load_preset
from workbench.launch import steer
from workbench.launch.steer import ForkPoint
from workbench.record.folder import RunFolder
from workbench.view.common import form
from workbench.view.common.run_store import RunStore

_FORK = re.compile(r"fork:(?P<run>[A-Za-z0-9._-]{1,64}):(?P<step>\d{1,9})")


class StartingPoint(NamedTuple):
    """What a form starts from."""

    config: RunConfig
    about: str
    parent: RunFolder | None = None
    fork: ForkPoint | None = None


class ForkLink(NamedTuple):
    """A link to fork a run."""

    choice: str
    """The value of "Start from"."""
    title: str
    config: RunConfig
    """To fill in: the parent's settings with those of the link."""


def starting_point(store: RunStore, choice: str) -> StartingPoint:
    """The settings behind a choice of "Start from". Raises RunError for a run or checkpoint that is not there (any more)."""
    found = _FORK.fullmatch(choice)
    if found is None:
        return StartingPoint(RunConfig.build(choice), load_preset(choice).about)
    folder = store.folder(found["run"])
    begin = steer.fork_point(folder, int(found["step"]))
    config = steer.fork_config(folder, begin, {})
    where = f"its checkpoint after step {begin.step}" if begin.step else "its base model"
    about = (
        f"A fork of {title(folder)}: it goes on from {where} with the settings below, counts its steps on from there, and "
        "meets the same prompts. The parent stays as it is."
    )
    return StartingPoint(config, about, folder, begin)


def from_link(store: RunStore, query: Mapping[str, str]) -> ForkLink | None:
    """`?fork=RUN&step=N&set={...}`; None for a URL that forks nothing. Raises RunError, ConfigError."""
    run, step = query.get("fork"), query.get("step") or "0"
    if not run:
        return None
    if not step.isascii() or not step.isdigit() or len(step) > 9:
        raise RunError(f"step = {step[:40]!r}: give the number of a step.")
    begin = steer.fork_point(store.folder(run), int(step))
    choice = f"fork:{run}:{begin.step}"
    found = starting_point(store, choice)
    try:
        wanted = json.loads(query.get("set") or "{}")
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        raise ConfigError("The link's settings cannot be read. Open the fork again from its run.")
    where = f"step {begin.step}" if begin.step else "the base model"
    return ForkLink(
        choice, f"Fork of {title(store.folder(run))} from {where}", found.config.changed(**wanted)
    )


def changes(begin: StartingPoint, config: RunConfig) -> dict[str, Any]:
    """Settings that were changed in the form. Values that the form shows alike count as equal."""
    as_shown = {
        name: form.field_value(info, getattr(begin.config, name))
        for name, info in form.INFOS.items()
        if name != "rewards"
    }
    before = begin.config.changed(**as_shown)
    return {
        name: getattr(config, name) for name in form.INFOS if getattr(config, name) != getattr(before, name)
    }


def title(folder: RunFolder) -> str:
    """A run's name, or its id."""
    return folder.config().run_name or folder.id
