"""The default run with three seeds: what the README promises, measured. `python benchmarks/embedded.py [--seeds 0 1 2] [--json]`.

Each run is the public command in a process of its own; the figures go to results/embedded.json with hardware, versions and load.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from workbench.record.folder import folders
from workbench.record.provenance import hardware, versions
from workbench.view.new_run.expected_results import figures

RESULT = Path(__file__).parent / "results" / "embedded.json"
SHIPPED = Path(__file__).parents[1] / "workbench" / "core" / "presets" / "embedded.expected.json"
"""What New run shows as to be expected, made from the same runs."""

KEPT = (
    "steps",
    "seconds",
    "heldout_sampled_first",
    "heldout_sampled_last",
    "heldout_greedy_first",
    "heldout_greedy_last",
    "mean_length_first",
    "mean_length_last",
)
"""What is kept of a run's own summary."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            load = os.getloadavg()[0]
            command = [
                sys.executable,
                "-m",
                "workbench",
                "run",
                "--preset",
                "embedded",
                "--seed",
                str(seed),
                "--runs",
                str(options.runs or temporary),
                "--wait",
                "--json",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.strip().splitlines()[-1])
            rows.append(
                {
                    "seed": seed,
                    "load_before": round(load, 2),
                    **{key: row[key] for key in KEPT},
                }
            )
            if not options.json:
                print(rows[-1], flush=True)
        shipped = figures(folders(options.runs or temporary), "three recorded runs of this preset")
        SHIPPED.write_text(json.dumps(shipped, indent=1) + "\n")
    result = {"hardware": hardware(), "versions": versions(), "runs": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
