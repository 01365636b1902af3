"""Every alarm raised by a real run of the embedded model: `python benchmarks/raise_alarms.py [--runs DIR] [--only NAME ...]`.

Each sick run differs from the default in what makes it sick. What it raises, and when, goes to results/alarms.json.
"""

from pathlib import Path

HERE = Path(__file__).parent
REWARDS = HERE / "sick_rewards.py"
SICK: dict[str, dict[str, object]] = {
    "format-only": {"rewards": "format=1"},
    "lr-1e-3": {"learning_rate": 1e-3},
    "lr-5e-3": {"learning_rate": 5e-3},
    "lr-1": {"learning_rate": 1.0, "warmup_steps": 0},
    "beta-2": {"beta": 2.0},
    "hardest": {"min_level": 9, "max_level": 9},
    "tiny-bonus": {"rewards": f"{REWARDS}:tiny_bonus=1"},
    "short-limit": {"max_completion_length": 16},
    "picky": {"rewards": f"{REWARDS}:picky=1"},
    "long-when-wrong": {"rewards": f"{REWARDS}:long_when_wrong=1"},
    "says-five": {"rewards": f"{REWARDS}:says_five=1"},
    "bfloat16": {"dtype": "bfloat16"},
    "needle": {"rewards": f"{REWARDS}:needle=1", "eval_reward": "needle"},
    "huge": {"rewards": f"{REWARDS}:huge=1"},
}
