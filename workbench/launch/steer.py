"""Changes to an existing run, checked before they are sent: live settings, and forks.

In: a run folder and settings by name. Out: commands for its inbox, or a new run that begins at one of its checkpoints.
Pages, command line and notebook all use this.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from workbench import launch
from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, ModelError, RewardError, RunError
from workbench.launch import preflight
from workbench.record import checkpoints
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.rewards import versions

FIXED = ("model", "dtype", "use_peft", "lora_r", "lora_alpha", "lora_target_modules")
"""Settings that decide what the weights of a checkpoint are; a fork from one keeps them."""
STATE = "state.json"
"""Where a checkpoint keeps the settings of its time."""


class NewCommand(NamedTuple):
    """A command for a run's inbox, not yet sent."""

    command: str
    args: dict[str, Any]


class ForkPoint(NamedTuple):
    """Where a fork begins."""

    step: int
    """Finished steps; 0 is the base model."""
    config: RunConfig
    """The parent's settings at that step, live changes included."""
    checkpoint: Path | None
    """None at step 0: the base model itself is loaded."""


# -- live settings -----------------------------------------------------------------------------------------


def current_config(folder: RunFolder) -> RunConfig:
    """The settings of a run as they are now: those of the start with the live changes since."""
    return RunConfig.parse(Reader(folder).current_settings())


def commands_for(folder: RunFolder, values: Mapping[str, Any], *, fresh: bool = True) -> list[NewCommand]:
    """The commands that change these live settings. `fresh`: the user's reward files are read anew. Raises ConfigError with
    a sentence for each setting that cannot be changed, or not to this value."""
    changed = current_config(folder).live_changed(values)
    problems = _length_problems(changed)
    plain = changed.model_dump(mode="json")
    args = {name: plain[name] for name in values}
    commands: list[NewCommand] = []
    if "rewards" in values:
        try:
            found = versions.prepare_update(
                changed.rewards, folder.rewards, folder.about()["rewards"], fresh=fresh
            )
        except RewardError as error:
            problems["rewards"] = str(error)
        else:
            args["rewards"] = [spec.model_dump(mode="json") for spec in found.specs]
            commands += [NewCommand("rewards", {"files": found.files})] if found.files else []
    if problems := {name: sentence for name, sentence in problems.items() if name in values}:
        raise ConfigError("\n".join(problems.values()), problems)
    return [*commands, NewCommand("set", args)]


def send(folder: RunFolder, values: Mapping[str, Any], *, fresh: bool = True) -> list[str]:
    """Send the commands that change these settings; returns their ids. Raises ConfigError, RunError."""
    return [launch.send(folder, *command) for command in commands_for(folder, values, fresh=fresh)]


def send_and_wait(folder: RunFolder, values: Mapping[str, Any], timeout: float = 600.0) -> dict[str, Any]:
    """`send`, and wait for the reply to the last command, or to the first that is refused. Raises ConfigError, RunError."""
    reply: dict[str, Any] = {}
    for command, args in commands_for(folder, values):
        reply = launch.send_and_wait(folder, command, args, timeout)
        if not reply["ok"]:
            break
    return reply


def _length_problems(config: RunConfig) -> dict[str, str]:
    """A sentence per setting where prompt and completion do not fit into the model's context."""
    problems: dict[str, str] = {}
    try:
        facts = estimate.facts(config.model)
    except ModelError:
        return problems
    if facts:
        preflight.check_lengths(config, facts, problems)
    return problems


# -- forks -------------------------------------------------------------------------------------------------


def fork_point(folder: RunFolder, step: int) -> ForkPoint:
    """Where a fork from `step` begins: the last checkpoint at or before it, else the base model. Raises RunError."""
    if step < 0:
        raise RunError(
            f"step = {step}: a fork begins at 0 (the base model) or behind a checkpoint of the run."
        )
    usable = [found.step for found in checkpoints.listing(folder) if not found.problem and found.step <= step]
    if not usable:
        return ForkPoint(0, folder.config(), None)
    last = max(usable)
    checkpoint = checkpoints.at(folder, last)
    try:
        config = RunConfig.parse(json.loads((checkpoint / STATE).read_text())["config"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"Checkpoint {checkpoint.name} does not say its settings ({error}). Choose another one."
        ) from error
    return ForkPoint(last, config, checkpoint if last else None)


def fork_config(folder: RunFolder, begin: ForkPoint, changes: Mapping[str, Any]) -> RunConfig:
    """The settings of a fork. Raises ConfigError for what the weights it begins with do not allow."""
    config = begin.config.changed(run_name=None).changed(**changes)
    if begin.checkpoint is not None:
        problems = {
            name: f"{name} cannot change in a fork from step {begin.step}: its weights are what they are. Fork from step 0, or "
            "start a new run."
            for name in FIXED
            if getattr(config, name) != getattr(begin.config, name)
        }
        if problems:
            raise ConfigError("\n".join(problems.values()), problems)
    if config.steps <= begin.step:
        if "steps" in changes:
            sentence = f"steps = {config.steps}, but the fork begins behind step {begin.step}. Give more."
            raise ConfigError(sentence, {"steps": sentence})
        config = config.changed(steps=begin.step + folder.config().steps)
    return config


def fork(
    folder: RunFolder,
    step: int,
    changes: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
    *,
    key: str | None = None,
    worker: Sequence[str] | None = None,
) -> RunFolder:
    """Start a run that goes on from another one's checkpoint (the last at or before `step`; 0: from the base model) with
    other settings. Its parent is kept in config.json. Raises ConfigError, RunError."""
    changes = changes or {}
    begin = fork_point(folder, step)
    report = preflight.check(fork_config(folder, begin, changes), folder, fresh="rewards" in changes)
    prepare = None
    if begin.checkpoint is not None:
        state = {"config": report.config.model_dump(mode="json")}
        prepare = partial(checkpoints.copy_into, begin.checkpoint, changes={STATE: state})
    return preflight.start_checked(
        report,
        folder.root if root is None else root,
        parent={"run": folder.id, "step": begin.step},
        key=key,
        worker=worker,
        prepare=prepare,
    )
