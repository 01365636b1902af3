"""Digests of default runs, to prove that a change of the code changed no number: `python benchmarks/digest.py [--seeds 0 1 2] [--set steps=10]`.

One line of JSON a seed: sha256 of the final weights, of all completions with their numbers, and of all metrics but times. Run it before and
after the change, on one thread (which it sets); the lines must be equal. Reads run.db of format 1 too.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = (
    ("completion", "text"), ("reward",), ("advantage",), ("logprob_sum",), ("kl",), ("entropy",), ("gradient_share",),
    ("logprob_change", "delta_logp"),
)  # fmt: skip
"""Numbers of a sample, each under its name in this format of run.db and in earlier ones."""
TIMES = ("time/", "step_time", "memory/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="settings, as name=value")
    options = parser.parse_args()
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as root:
            command = [sys.executable, "-m", "workbench", "run", "--preset", "embedded", "--runs", root]
            for one in [f"seed={seed}", *options.set]:
                name, _, value = one.partition("=")
                command += [f"--{name.replace('_', '-')}", value]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [*command, "--wait", "--json"], capture_output=True, text=True, env=environment
            )
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            (record,) = Path(root).glob("*/run.db")
            print(json.dumps({"seed": seed, **digest(record.parent)}), flush=True)


def digest(folder: Path) -> dict[str, str | int]:
    """The digests of a finished run."""
    connection = sqlite3.connect(folder / "run.db")
    known = {row[1] for row in connection.execute("PRAGMA table_info(samples)")}
    columns = ", ".join(next(name for name in names if name in known) for names in COLUMNS)
    samples = connection.execute(f"SELECT {columns} FROM samples ORDER BY id").fetchall()
    metrics = [
        row
        for row in connection.execute("SELECT kind, mode, step, name, value FROM metrics ORDER BY 1, 2, 3, 4")
        if not row[3].startswith(TIMES)
    ]
    return {
        "weights": _sha((folder / "final" / "model.safetensors").read_bytes()),
        "samples": _sha(repr(samples).encode()),
        "metrics": _sha(repr(metrics).encode()),
        "sample_count": len(samples),
        "metric_count": len(metrics),
    }


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    main()
