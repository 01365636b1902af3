"""What can be done about an alarm, as one command to the run or one prefilled fork of it.

A remedy is plain JSON: {"label", "command", "args"}, or {"label", "fork": settings, "step": where from}.
"""

from typing import Any, NamedTuple

from workbench.core.config import RewardSpec, RunConfig

Remedy = dict[str, Any]


class RunLimits(NamedTuple):
    """What a remedy must keep to, beside the settings."""

    context: int | None = None
    """Tokens the model reads, prompt included."""
    levels: tuple[int, int] | None = None
    """Easiest and hardest level that is asked; None where prompts have none."""
    offered: range = range(0)
    """Levels of the task."""
    accuracy_reward: str = "correct"
    """The reward that tells right from wrong."""


def live(label: str, **settings: Any) -> Remedy:
    """Settings to change from the next step on."""
    return {"label": label, "command": "set", "args": settings}


def command(label: str, name: str) -> Remedy:
    """pause, stop or checkpoint."""
    return {"label": label, "command": name, "args": {}}


def fork(label: str, step: int, **settings: Any) -> Remedy:
    """A new run from the last checkpoint at or before `step`, with these settings."""
    return {"label": label, "fork": settings, "step": max(0, step)}


def hotter(config: RunConfig) -> Remedy:
    """A fifth more temperature."""
    warmer = round(min(10.0, config.temperature * 1.2), 2)
    return live(f"Temperature {config.temperature:g} → {warmer:g}", temperature=warmer)


def stronger_pull(config: RunConfig) -> Remedy:
    """Twice the beta, or the one of DeepSeekMath where there was none."""
    beta = 0.04 if config.beta == 0 else min(1000.0, 2 * config.beta)
    return live(f"Beta {config.beta:g} → {beta:g}", beta=beta)


def slower(config: RunConfig, by: float = 2.0) -> Remedy:
    """A part of the learning rate."""
    rate = float(f"{config.learning_rate / by:.3g}")
    return live(f"Learning rate {compact(config.learning_rate)} → {compact(rate)}", learning_rate=rate)


def larger_groups(config: RunConfig) -> Remedy | None:
    """Twice the answers a prompt."""
    size = 2 * config.num_generations
    return live(f"Group size {config.num_generations} → {size}", num_generations=size) if size <= 64 else None


def longer_answers(config: RunConfig, around: RunLimits) -> Remedy | None:
    """Twice the limit, as far as the model reads that much."""
    longest = 2 * config.max_completion_length
    if around.context is not None and longest > around.context * 3 // 4:
        return None
    return live(f"Longest answer {config.max_completion_length} → {longest}", max_completion_length=longest)


def levels(around: RunLimits, step: int, by: int) -> Remedy | None:
    """Easier (by < 0) or harder prompts, where the task has levels and there are any that way."""
    if around.levels is None or not around.offered:
        return None
    low, high = around.levels
    ends = around.offered[0], around.offered[-1]
    easiest, hardest = (min(max(level + by, ends[0]), ends[1]) for level in (low, high))
    if by < 0 and (easiest, hardest) == (low, high):
        hardest = max(easiest, high + by)
    if (easiest, hardest) == (low, high):
        return None
    word = "Easier" if by < 0 else "Harder"
    return fork(f"{word} prompts: level {easiest} to {hardest}", step, min_level=easiest, max_level=hardest)


def also_correct(config: RunConfig, around: RunLimits) -> Remedy | None:
    """Count the reward that tells right from wrong, where it does not count yet."""
    accuracy = around.accuracy_reward
    for i, spec in enumerate(config.rewards):
        if spec.name == accuracy:
            if spec.enabled and spec.weight > 0:
                return None
            changed = list(config.rewards)
            changed[i] = spec.model_copy(update={"enabled": True, "weight": 1.0})
            break
    else:
        changed = [*config.rewards, RewardSpec(name=accuracy)]
    return {
        "label": f"Count {accuracy} too",
        "command": "set",
        "args": {"rewards": [spec.model_dump(mode="json") for spec in changed]},
    }


def without(config: RunConfig, reward: str) -> Remedy | None:
    """Go on without one reward, where others count."""
    left = [spec for spec in config.rewards if spec.name.rpartition(":")[2] != reward]
    if len(left) == len(config.rewards) or not any(spec.enabled and spec.weight for spec in left):
        return None
    rest = [spec.model_dump(mode="json") for spec in left]
    return {"label": f"Go on without {reward}"[:40], "command": "set", "args": {"rewards": rest}}


def there(*remedies: Remedy | None) -> list[Remedy]:
    """At most two of those that can be offered."""
    return [remedy for remedy in remedies if remedy is not None][:2]


def compact(value: float) -> str:
    """0.0004 as 4e-4."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"
