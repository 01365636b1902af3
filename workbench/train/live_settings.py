"""Changes of settings while a run goes on, applied at a step boundary.

In: a command from the inbox and the settings of now. Out: the settings from now on, and the reply in the events. Torch-free.
"""

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RewardError
from workbench.record.control import Control
from workbench.record.folder import Command
from workbench.train.reward_pools import RewardPools


def apply(
    command: Command, config: RunConfig, control: Control, reward_pools: RewardPools, context: int
) -> RunConfig:
    """Apply a change of settings; returns the settings from now on."""
    if command.command not in ("set", "rewards"):
        control.reply(
            command,
            False,
            f"{command.command} is not known. A training run takes pause, resume, stop, checkpoint, set and rewards.",
        )
        return config
    try:
        if command.command == "rewards":
            reward_pools.receive(command.args.get("files") or {})
            control.reply(command, True, "reward code kept; set rewards to use it")
            return config
        changed = config.live_changed(command.args)
        if changed.max_completion_length >= context:
            raise ConfigError(
                f"max_completion_length = {changed.max_completion_length}, but the model reads at most {context} tokens. Set less."
            )
        reward_pools.of(
            changed
        )  # code that is not there or cannot be loaded is refused here, and the old rewards stay
    except (ConfigError, RewardError) as error:
        control.reply(command, False, str(error))
        return config
    before, after = config.model_dump(mode="json"), changed.model_dump(mode="json")
    moved = {name: {"from": before[name], "to": after[name]} for name in command.args}
    control.reply(
        command,
        True,
        ", ".join(
            f"{name} {format_value(one['from'])} -> {format_value(one['to'])}" for name, one in moved.items()
        ),
    )
    control.event("setting_changed", moved)
    return changed


def format_value(value: object) -> str:
    """A setting's value in a reply; of rewards their names, weights and versions."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return ", ".join(
        f"{one['name']} x {one['weight'] if one['enabled'] else 0:g}{' @' + one['version'] if one['version'] else ''}"
        for one in value
    )
