"""Whether the fast paths learn what the slow one learns: the embedded run, default against `--packed-update false --engine transformers`.

    python benchmarks/equality.py --runs DIR [--seeds 0 1 2] [--steps 50]

Each run is the public command in a process of its own. Finished runs stay in DIR and are not made again, so the benchmark may be stopped
at any time. Figures go to results/equality.json: held-out accuracy at the end, sampled and greedy, with its binomial standard error.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from embedded import KEPT
from surroundings import surroundings

RESULT = Path(__file__).parent / "results" / "equality.json"
PATHS: dict[str, tuple[str, ...]] = {
    "default": (),
    "slow": ("--packed-update", "false", "--engine", "transformers"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="finished runs are kept here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    around, rows = surroundings(), []
    for seed in options.seeds:
        for path in PATHS:
            row = made(options.runs, path, seed, options.steps)
            rows.append(row)
            print(row, flush=True)
    result = {**around, "steps": options.steps, "runs": rows}
    RESULT.write_text(json.dumps({**result, "compared": compared(rows)}, indent=1) + "\n")


def made(root: Path, path: str, seed: int, steps: int) -> dict[str, Any]:
    """What one run came to; made now unless it was finished before."""
    kept = root / f"{path}-{seed}-{steps}.json"
    if not kept.is_file():
        load = round(os.getloadavg()[0], 2)
        command = [sys.executable, "-m", "workbench", "run", "--preset", "embedded", "--seed", str(seed)]
        command += ["--steps", str(steps), *PATHS[path], "--runs", str(root), "--wait", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        found = {"path": path, "seed": seed, "load_before": load, **{name: row[name] for name in KEPT}}
        kept.write_text(json.dumps(found))
    answer: dict[str, Any] = json.loads(kept.read_text())
    return answer


def compared(rows: list[dict[str, Any]], problems: int = 128) -> dict[str, Any]:
    """Means over the seeds, their difference, and the standard error of that difference if only the draw of answers differed.

    `problems`: answers behind each greedy check; the sampled one has more (16 problems answered 4 times), so its error is an upper bound.
    """
    answer: dict[str, Any] = {}
    for name in ("heldout_sampled_last", "heldout_greedy_last", "mean_length_last"):
        values = {path: [row[name] for row in rows if row["path"] == path] for path in PATHS}
        mean = {path: sum(found) / len(found) for path, found in values.items()}
        answer[name] = {**mean, "difference": mean["default"] - mean["slow"]}
        if name.startswith("heldout"):
            answer[name]["standard_error"] = math.sqrt(
                sum(mean[path] * (1 - mean[path]) / (problems * len(values[path])) for path in PATHS)
            )
    return answer


if __name__ == "__main__":
    main()
