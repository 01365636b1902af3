"""What a page asks once of a run: its settings, model, rewards and where it came from.

In: a reader. Out: plain JSON values, as the dashboard's routes promise them.
"""

from typing import Any

from workbench.core import estimate
from workbench.core.config import RunConfig, settings
from workbench.core.errors import ModelError
from workbench.diagnose.text import R1_WORDS
from workbench.record import rollup
from workbench.record.reader import Reader
from workbench.rewards.builtin.catalogue import REWARDS

Json = dict[str, Any]


def run_header(reader: Reader) -> Json:
    """What stays the same while a run trains, except for the live settings and live rewards, which are those in force now."""
    about = reader.folder.about()
    config = reader.config
    now = reader.current_settings()
    defaults = {info.name: info.default for info in settings()}
    values = config.model_dump(mode="json")
    return {
        "id": reader.folder.id,
        "name": config.run_name,
        "config": values,
        "changed": {name: value for name, value in values.items() if getattr(config, name) != defaults[name]},
        "model": model_facts(config),
        "rewards": _rewards(about, config),
        "accuracy_reward": rollup.accuracy_reward(config),
        "parent": about.get("parent"),
        "versions": about.get("versions", {}),
        "hardware": about.get("hardware", {}),
        "seed": config.seed,
        "created": about.get("created"),
        "steps": config.steps,
        "prompts_per_step": config.prompts_per_step,
        "num_generations": config.num_generations,
        "reward_range": reward_range(config),
        "binary": is_binary(config),
        "live_settings": [
            {"name": info.name, "label": info.label, "value": now[info.name]}
            for info in settings()
            if info.live and info.name != "rewards"
        ],
        "live_rewards": now["rewards"],
        "reflection_words": list(R1_WORDS),
        "notice": reader.notice,
        "search": True,
    }


def model_facts(config: RunConfig) -> Json:
    """Name and size of the base model; sizes are None for a model that is not on this machine."""
    try:
        facts = estimate.facts(config.model)
    except ModelError:
        facts = None
    return {
        "name": config.model,
        "parameters": facts.parameters if facts else None,
        "bytes": facts.stored_bytes if facts else None,
        "architecture": facts.architecture if facts else None,
    }


def reward_range(config: RunConfig) -> tuple[float, float]:
    """The lowest and the highest total reward of a completion. A reward that declares no range counts as 0 to 1."""
    low = high = 0.0
    for spec in config.rewards:
        if spec.enabled:
            ends = REWARDS[spec.name].range if spec.name in REWARDS else (0.0, 1.0)
            low += min(spec.weight * end for end in ends)
            high += max(spec.weight * end for end in ends)
    return low, high


def is_binary(config: RunConfig) -> bool:
    """Whether the only reward that counts is correctness, so that the words right and wrong fit."""
    counting = [spec for spec in config.rewards if spec.enabled and spec.weight]
    return len(counting) == 1 and counting[0].name == rollup.accuracy_reward(config) == "correct"


def _rewards(about: Json, config: RunConfig) -> list[Json]:
    sources = {source.get("name"): source for source in about.get("rewards", [])}
    return [
        {
            "name": spec.name,
            "weight": spec.weight,
            "enabled": spec.enabled,
            "source_hash": sources.get(spec.name, {}).get("sha"),
        }
        for spec in config.rewards
    ]
