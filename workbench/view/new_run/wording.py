"""Sentences and figures of the New run page: how many samples, how long, how much memory. Plain text, no markup."""

from workbench.core.config import RunConfig
from workbench.core.estimate import GIB, Duration, Memory
from workbench.core.variants import BASELINES, LOSSES, SCALES

MINUS = "\u2212"


def headline(config: RunConfig, duration: Duration | None) -> str:
    """What pressing Start will do, in two sentences."""
    drawn = f"{config.prompts_per_step} prompts × {config.num_generations} samples"
    samples = f"{drawn} = {config.samples_per_step} samples per "
    updates = config.num_iterations * config.steps_per_generation
    first = samples + ("update." if updates == 1 else f"step of {updates} updates.")
    what = plural(config.steps, "update" if updates == 1 else "step")
    takes = "takes" if config.steps == 1 else "take"
    if duration is None:
        return f"{first} How long {what} {takes} is not known here yet: a dry run measures it."
    return f"{first} {what} {takes} {about(duration.total)} here."


def about(seconds: float) -> str:
    """A duration in words: about 2 minutes."""
    if seconds < 90:
        rounded = max(5, 5 * round(seconds / 5)) if seconds < 30 else 10 * round(seconds / 10)
        return f"about {rounded} seconds"
    if seconds < 5400:
        return f"about {plural(max(2, round(seconds / 60)), 'minute')}"
    return f"about {plural(max(2, round(seconds / 3600)), 'hour')}"


def short(seconds: float) -> str:
    """A duration in few characters: 8 s, 2 min, 1.5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plural(count: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes in the unit that fits."""
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def parameters(count: int) -> str:
    """`336,480 parameters`, `0.49 billion parameters`."""
    if count >= 10**8:
        return f"{count / 1e9:.2f} billion parameters"
    return f"{count:,} parameters" if count < 10**7 else f"{count / 1e6:.0f} million parameters"


def figure(value: float) -> str:
    """A share or a reward, two decimals, no leading zero: .93, 1."""
    rounded = f"{value:.2f}"
    return (
        "1"
        if rounded == "1.00"
        else rounded.removeprefix("0")
        if value >= 0
        else MINUS + rounded.removeprefix("-0").removeprefix("-")
    )


def percent(share: float) -> str:
    """Whole percent."""
    return f"{100 * share:.0f} %"


def memory(need: Memory, available: int) -> str:
    """Whether it fits, and what to do where it does not."""
    if need.total <= 0.9 * available:
        return ""
    return (
        f"May not fit: samples of the max completion length need about {size(need.total)}, there are {size(available)}. "
        "Lower the max completion length or the tokens per microbatch, or turn on LoRA."
    )


def algorithm(config: RunConfig) -> list[tuple[str, str]]:
    """The main choices of the algorithm in words: (name, words)."""
    evaluation = (
        f"{plural(config.eval_problems, 'problem')} every {plural(config.eval_steps, 'step')}"
        if config.eval_problems
        else "none"
    )
    return [
        ("Loss", LOSSES[config.loss_type].words),
        (
            "Advantage",
            f"reward {MINUS} {BASELINES[config.advantage_baseline]}, {SCALES[config.scale_rewards]}",
        ),
        ("Clip", f"{config.epsilon:g} / {config.clip_high:g}"),
        ("Held-out evaluation", evaluation),
    ]
