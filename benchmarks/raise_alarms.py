"""Every alarm raised by a real run of the embedded model: `python benchmarks/raise_alarms.py [--runs DIR] [--only NAME ...]`.

Each sick run differs from the default in what makes it sick. What it raises, and when, goes to results/alarms.json.
"""

from pathlib import Path

HERE = Path(__file__).parent
REWARDS = HERE / "sick_rewards.py"
SHARP = {"learning_rate": 5e-4, "adam_epsilon": 1e-8}
"""Adam as it usually is: late steps of this small model are less calm with it than with the default's epsilon."""
SICK: dict[str, dict[str, object]] = {
    "format-only": {"rewards": "format=1", **SHARP},
    "lr-1e-3": {**SHARP, "learning_rate": 1e-3},
    "lr-5e-3": {**SHARP, "learning_rate": 5e-3},
    "lr-1": {"learning_rate": 1.0, "warmup_steps": 0},
    "beta-2": {"beta": 2.0, **SHARP},
    "hardest": {"min_level": 9, "max_level": 9, **SHARP},
    "tiny-bonus": {"rewards": f"{REWARDS}:tiny_bonus=1"},
    "short-limit": {"max_completion_length": 16, **SHARP},
    "picky": {"rewards": f"{REWARDS}:picky=1"},
    "long-when-wrong": {"rewards": f"{REWARDS}:long_when_wrong=1"},
    "says-five": {"rewards": f"{REWARDS}:says_five=1"},
    "needle": {"rewards": f"{REWARDS}:needle=1", "eval_reward": "needle"},
    "bfloat16": {"dtype": "bfloat16"},
    "huge": {"rewards": f"{REWARDS}:huge=1"},
}
