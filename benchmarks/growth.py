"""How a step grows: time and memory against group size, answer length and vocabulary, and reading against steps recorded.

    python benchmarks/growth.py [--picture docs/images/growth.png]

Each point is a few steps of the real loop (grpo_step.py) on a small random model in a process of its own, on one core, every answer as long
as allowed; the last row reads recorded runs as Live does. CPU seconds, and MB above the loaded model. Figures go to results/growth.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from peer import make_models
from surroundings import surroundings

from tests.fakes import write_fake_run
from workbench.view.common.run_store import RunStore
from workbench.view.live.delta import read_delta

HERE = Path(__file__).parent
RESULT = HERE / "results" / "growth.json"
SHAPE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 384,
}
"""Of every model here; answers never end by themselves."""
BASE = {"G": 8, "length": 64, "vocabulary": 1000}
GROWN: dict[str, list[int]] = {
    "G": [4, 8, 16, 32, 64],
    "length": [32, 64, 128, 256, 512],
    "vocabulary": [100, 1000, 10_000, 50_000],
}
STEPS = [50, 200, 800, 3200]
AXES = {
    "G": "samples in a group, G",
    "length": "tokens of an answer",
    "vocabulary": "tokens of the vocabulary",
    "steps": "steps recorded",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picture", type=Path, help="draw what was measured here")
    parser.add_argument("--drawn-only", action="store_true", help="draw the kept figures again")
    options = parser.parse_args()
    if not options.drawn_only:
        around, found = surroundings(), {}
        with tempfile.TemporaryDirectory() as temporary:
            for name, values in GROWN.items():
                found[name] = [step({**BASE, name: value}, name, Path(temporary)) for value in values]
            found["steps"] = [reading(count, Path(temporary)) for count in STEPS]
        RESULT.write_text(json.dumps({**around, "base": BASE, "points": found}, indent=1) + "\n")
    if options.picture:
        draw(json.loads(RESULT.read_text()), options.picture)


def step(sizes: dict[str, int], name: str, root: Path) -> dict[str, Any]:
    """Seconds and memory of one step with these sizes."""
    spec, model = f"vocabulary {sizes['vocabulary']}", root / f"model-{sizes['vocabulary']}"
    prompts = root / f"prompts-{sizes['vocabulary']}.jsonl"
    if not model.is_dir():
        make_models.SPECS[spec] = {**SHAPE, "vocab_size": sizes["vocabulary"]}
        make_models.build(spec, 0.0, str(model))
        make_models.prompts(spec, 64, 24, 24, str(prompts))
    command = [
        *(sys.executable, str(HERE / "grpo_step.py"), "--model-dir", str(model), "--prompts", str(prompts)),
        *("--prompts-per-step", "4", "--G", str(sizes["G"]), "--max-new", str(sizes["length"])),
        *("--steps", "3", "--warmup", "1", "--threads", "1"),
    ]
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    whole = json.loads(done.stdout.strip().splitlines()[-1])
    row = {
        "at": sizes[name],
        "seconds": whole["cpu_sec_per_step_median"],
        "memory_mb": whole["peak_above_loaded_model_mb"],
        "tokens": whole["completion_tokens_mean"],
    }
    print(name, row, flush=True)
    return row


def reading(count: int, root: Path) -> dict[str, Any]:
    """Seconds to read a run of so many steps as a page that is opened does, and its size on disk."""
    folder = write_fake_run(root / f"runs-{count}", steps=count, groups=4, samples=8)
    store = RunStore(folder.root)
    began = time.process_time()
    read_delta(store, folder.id, None)
    row = {
        "at": count,
        "seconds": time.process_time() - began,
        "memory_mb": sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file()) / 2**20,
    }
    print("steps", row, flush=True)
    return row


def draw(kept: dict[str, Any], where: Path) -> None:
    """Two rows of small multiples: seconds above, MB below."""
    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(2, 4, figsize=(12, 5), constrained_layout=True)
    for column, (name, axis) in enumerate(AXES.items()):
        rows = kept["points"][name]
        at = [row["at"] for row in rows]
        whats = (
            ("CPU seconds a step", "MB above the model")
            if name != "steps"
            else ("CPU seconds to open", "MB on disk")
        )
        for row, (key, what) in enumerate(zip(("seconds", "memory_mb"), whats, strict=True)):
            plot = axes[row][column]
            values = [one[key] for one in rows]
            plot.plot(at, values, "o-", color="#0f766e", markersize=4)
            shown = [value for value in at if value >= at[-1] / 8]
            plot.set_xlim(0, 1.06 * at[-1])
            plot.set_xticks(shown, [f"{value:,}" for value in shown])
            plot.set_ylim(0, 1.12 * max(values))
            plot.set_title(what, loc="left", fontsize=9)
            plot.grid(axis="y", color="#e5e5e5")
            plot.annotate(
                f"{values[-1]:.3g}", (at[-1], values[-1]), (-4, 5), textcoords="offset points", ha="right"
            )
            if row == 1:
                plot.set_xlabel(axis)
    figure.savefig(where, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
