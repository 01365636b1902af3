"""Every alarm raised by a real run of the embedded model: `python benchmarks/raise_alarms.py [--runs DIR] [--only NAME ...]`.

Each sick run differs from the default in what makes it sick. What it raises, and when, goes to results/alarms.json. With --fixture the
figures that rules look at are kept for the tests too. Runs in DIR are used again.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recording import alarms, recorded

from workbench import launch
from workbench.core.config import RunConfig
from workbench.diagnose.alarms.watch import RULES, Change, Watch, text_of
from workbench.record.folder import RunFolder
from workbench.record.provenance import hardware, versions
from workbench.record.reader import Reader

HERE = Path(__file__).parent
REWARDS = HERE / "sick_rewards.py"
RESULT = HERE / "results" / "alarms.json"
FIXTURE = HERE.parent / "tests" / "data" / "alarm_runs.json"
KEPT = (
    "reward",
    "accuracy",
    "reward_std",
    "frac_reward_zero_std/all_wrong",
    "frac_reward_zero_std/all_right",
    "frac_reward_zero_std/tied",
    "completions/clipped_ratio",
    "completions/mean_length",
    "completions/mean_length_wrong",
    "completions/mean_length_right",
    "entropy",
    "kl",
    "kl_k1",
    "kl_max_token",
    "kl_max_share",
    "kl_sequence",
    "beta",
    "groups/tiny_std",
    "diversity/duplicates",
    "diversity/distinct_2",
    "diversity/unique_answers",
    "reward/errors",
    "update/skipped",
    "sampling/ess",
    "sampling/sampling_logp_difference/mean",
)
"""What the rules look at."""
SHARP = {"learning_rate": 5e-4, "adam_epsilon": 1e-8}
"""Adam as it usually is: late steps of this small model are less calm with it than with the default's epsilon."""
SHORT = {
    "prompts_per_step": 8,
    "num_generations": 8,
    "steps": 20,
    "eval_problems": 64,
    "watched_prompts": 4,
    "watched_samples": 2,
}
"""Enough for what shows at once."""
SICK: dict[str, dict[str, object]] = {
    "format-only": {"rewards": "format=1", **SHARP},
    "lr-1e-3": {**SHARP, "learning_rate": 1e-3},
    "lr-5e-3": {**SHARP, "learning_rate": 5e-3},
    "beta-2": {"beta": 2.0, **SHARP},
    "hardest": {"min_level": 9, "max_level": 9, **SHARP},
    "short-limit": {"max_completion_length": 16, **SHARP},
    "tiny-bonus": {"rewards": f"{REWARDS}:tiny_bonus=1", **SHORT},
    "picky": {"rewards": f"{REWARDS}:picky=1", **SHORT},
    "needle": {"rewards": f"{REWARDS}:needle=1", "eval_reward": "needle", **SHORT},
    "long-when-wrong": {"rewards": f"{REWARDS}:long_when_wrong=1", **SHORT, **SHARP, "steps": 60},
    "says-five": {"rewards": f"{REWARDS}:says_five=1", "steps": 40},
    "kl-target": {"beta": 0.001, "beta_controller": "ppo", "kl_target": 0.002, **SHORT, **SHARP},
    "kl-tail": {"beta": 0.001, "min_level": 3, "max_level": 3, **SHORT, "steps": 40},
    "solved": {"rewards": "format=1", "eval_reward": "format", **SHORT},
    "bfloat16": {"dtype": "bfloat16", **SHORT},
    "half-update": {"update_dtype": "bfloat16", **SHORT, **SHARP, "learning_rate": 2e-2, "steps": 30},
    "lr-1": {"learning_rate": 1.0, "warmup_steps": 0, "adam_epsilon": 1e-8, **SHORT},
    "huge": {"rewards": "correct=1e30", "scale_rewards": "none", **SHORT},
}


def told(folder: RunFolder) -> dict[str, Any]:
    """What a sick run raised."""
    steps, loud, quiet = alarms(folder)
    state = launch.state(folder)
    return {
        "settings": {
            name: value.replace(f"{HERE}/", "") if isinstance(value, str) else value
            for name, value in SICK[folder.id].items()
        },
        "steps": steps,
        "state": state.state,
        "reason": state.reason,
        "alarms": [
            {"step": c.step, "name": c.name, "level": c.finding.level, "since": c.finding.since, "claim": c.finding.claim,
             "text": text_of(c.name, c.finding), "remedies": [remedy["label"] for remedy in c.finding.remedies]}
            for c in sorted([*loud, *quiet], key=lambda change: change.step) if c.finding
        ],
    }  # fmt: skip


def figures(folder: RunFolder) -> dict[str, Any]:
    """The run as the tests replay it: rounded, and judged as rounded."""
    found = Reader(folder).series(names=KEPT)
    metrics = {
        name: [None if value is None else float(f"{value:.4g}") for value in found["train"][name]]
        for name in KEPT
        if any(value is not None for value in found["train"][name])
    }
    names = [f"heldout/sampled/accuracy{end}" for end in ("", "_low", "_high")]
    table = Reader(folder).series(names=names)["sampled"]
    settings = {name: value for name, value in SICK.get(folder.id, {}).items() if "/" not in str(value)}
    kept = {
        "settings": settings,
        "steps": len(found["train"]["step"]),
        "checks": [list(row) for row in zip(table["step"], *(table[name] for name in names), strict=True)],
        "metrics": metrics,
    }
    return {**kept, "alarms": dict(sorted(judged(kept).items()))}


def judged(kept: Mapping[str, Any]) -> dict[str, int]:
    """Where each alarm was first loud, by kept figures alone."""
    watch = Watch(RunConfig.build(None, kept["settings"]))
    for step, *accuracy in kept["checks"]:
        names = (f"heldout/sampled/accuracy{end}" for end in ("", "_low", "_high"))
        watch.check(step, dict(zip(names, accuracy, strict=True)))
    changes: list[Change] = []
    for step in range(kept["steps"]):
        changes += watch.step(step, {name: values[step] for name, values in kept["metrics"].items()})
    loud: dict[str, int] = {}
    for change in changes + watch.end():
        if change.finding and change.finding.level != "info":
            loud.setdefault(change.name, change.step)
    return loud


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--only", nargs="+", choices=list(SICK), default=list(SICK))
    parser.add_argument(
        "--fixture", nargs="*", help="runs whose figures the tests get, healthy ones of DIR too"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.runs or Path(temporary)
        found = {name: folder for name in options.only if (folder := recorded(root, name, SICK[name]))}
        runs = {name: told(folder) for name, folder in found.items()}
        if options.fixture:
            kept = {name: figures(RunFolder(root / name)) for name in options.fixture}
            FIXTURE.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
    raised: dict[str, list[str]] = {name: [] for name in RULES}
    for run, row in runs.items():
        for alarm in row["alarms"]:
            raised[alarm["name"]].append(f"{run} at step {alarm['step']}")
            print(
                f"{run:16} step {alarm['step']:3} {alarm['level']:8} {alarm['name']:16} {alarm['claim']}",
                flush=True,
            )
    for name, where in raised.items():
        print(f"{name:16} {', '.join(where) or 'raised by none of these runs'}")
    result = {"raised_by": raised, "runs": runs, "hardware": hardware(), "versions": versions()}
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
