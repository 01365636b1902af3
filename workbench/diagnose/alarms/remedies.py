"""Remedies of an alarm: one command to the run, or one prefilled fork of it.

A remedy is plain JSON: {"label", "command", "args"}, or {"label", "fork": settings, "step": forked from}.
"""

from typing import Any, NamedTuple

from workbench.core.config import RewardSpec, RunConfig

Remedy = dict[str, Any]


class RunLimits(NamedTuple):
    """Limits on remedies beyond the settings."""

    context: int | None = None
    """Context length of the model, prompt included."""
    levels: tuple[int, int] | None = None
    """Lowest and highest level of the run's prompts; None where prompts have none."""
    offered: range = range(0)
    """Levels that the task has."""
    accuracy_reward: str = "correct"
    """The reward that decides right or wrong."""


def live(label: str, **settings: Any) -> Remedy:
    """A live change of settings, from the next step on."""
    return {"label": label, "command": "set", "args": settings}


def command(label: str, name: str) -> Remedy:
    """pause, stop or checkpoint."""
    return {"label": label, "command": name, "args": {}}


def fork(label: str, step: int, **settings: Any) -> Remedy:
    """A new run from the last checkpoint at or before `step`, with these settings."""
    return {"label": label, "fork": settings, "step": max(0, step)}


def higher_temperature(config: RunConfig) -> Remedy:
    """Temperature x 1.2."""
    warmer = round(min(10.0, config.temperature * 1.2), 2)
    return live(f"Temperature {config.temperature:g} → {warmer:g}", temperature=warmer)


def larger_beta(config: RunConfig) -> Remedy:
    """Beta x 2, or .04 as in DeepSeekMath (2402.03300) where it is 0."""
    beta = 0.04 if config.beta == 0 else min(1000.0, 2 * config.beta)
    return live(f"Beta {config.beta:g} → {beta:g}", beta=beta)


def lower_learning_rate(config: RunConfig, by: float = 2.0) -> Remedy:
    """Learning rate / `by`."""
    rate = float(f"{config.learning_rate / by:.3g}")
    return live(f"Learning rate {compact(config.learning_rate)} → {compact(rate)}", learning_rate=rate)


def larger_groups(config: RunConfig) -> Remedy | None:
    """Group size x 2, up to 64."""
    size = 2 * config.num_generations
    return live(f"Group size {config.num_generations} → {size}", num_generations=size) if size <= 64 else None


def longer_completions(config: RunConfig, around: RunLimits) -> Remedy | None:
    """Max completion length x 2, up to 3/4 of the model's context."""
    longest = 2 * config.max_completion_length
    if around.context is not None and longest > around.context * 3 // 4:
        return None
    return live(
        f"Max completion length {config.max_completion_length} → {longest}", max_completion_length=longest
    )


def levels(around: RunLimits, step: int, by: int) -> Remedy | None:
    """A fork with easier (by < 0) or harder prompts, where the task has such levels."""
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
    """Gives the accuracy reward weight 1, where it has none yet."""
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
    """Removes one reward, where others count."""
    left = [spec for spec in config.rewards if spec.name.rpartition(":")[2] != reward]
    if len(left) == len(config.rewards) or not any(spec.enabled and spec.weight for spec in left):
        return None
    rest = [spec.model_dump(mode="json") for spec in left]
    return {"label": f"Go on without {reward}"[:40], "command": "set", "args": {"rewards": rest}}


def available(*remedies: Remedy | None) -> list[Remedy]:
    """The first two remedies that apply."""
    return [remedy for remedy in remedies if remedy is not None][:2]


def compact(value: float) -> str:
    """0.0004 as `4e-4`."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"
