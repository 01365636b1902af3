"""A run whose whole worker is killed with -9 again and again, at moments nobody chose, and what it ends with beside the run left in peace.

`python benchmarks/kills.py [--kills 25]`. Live settings change meanwhile. Figures go to results/kills.json with hardware, versions, load.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from surroundings import surroundings

from tests.faults.test_resume_cases import EDITS, Runs, differences
from tests.faults.test_store_cases import WHOLE_STEPS
from tests.helpers import wait_until
from workbench.record import checkpoints, schema
from workbench.record.folder import RunFolder

RESULT = Path(__file__).with_name("results") / "kills.json"
SETTINGS = {"steps": 24, "save_steps": 4, "eval_steps": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    around = surroundings()
    with tempfile.TemporaryDirectory() as place:
        runs = Runs(Path(place), **SETTINGS)
        straight, broken = runs.create(), runs.create()
        began = time.perf_counter()
        assert runs.work(straight) == 0, straight.log_tail()
        seconds = time.perf_counter() - began
        kills: list[dict[str, Any]] = []
        ended = 0
        while len(kills) < options.kills:
            killed = kill_one(runs, broken, dice.uniform(0.2, 0.6 * seconds * 6 / SETTINGS["steps"] + 1.5))
            if killed is None:  # it came to its end: begin again with a fresh one
                assert differences(straight, broken) == []
                broken, ended = runs.create(), ended + 1
                continue
            kills.append(killed)
            print(json.dumps(killed), flush=True)
        assert runs.work(broken) == 0, broken.log_tail()
        different = differences(straight, broken)
        ended += 1
        runs.close()
    result = {
        **around,
        "settings": {**SETTINGS, "edits": EDITS},
        "kills": len(kills),
        "killed_runs_that_ended": ended,
        "records_whole": sum(kill["record_whole"] for kill in kills),
        "checkpoints_whole": sum(kill["checkpoint_whole"] for kill in kills),
        "steps_done_again": sum(kill["steps_done_again"] for kill in kills),
        "different_from_the_uninterrupted_run": different,
        "each": kills,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    whole = f"{result['records_whole']} records and {result['checkpoints_whole']} checkpoints whole"
    print(f"{len(kills)} kills: {whole}; different from the uninterrupted run: {different or 'nothing'}")


def kill_one(runs: Runs, folder: RunFolder, after: float) -> dict[str, Any] | None:
    """Start the worker, kill it `after` seconds into its run, and look at what is there. None: it was done before that."""
    before = folder.status().get("pid")
    runs.begin(folder)
    pid = wait_until(
        lambda: (now := folder.status()).get("pid") != before and now.get("state") == "running" and now["pid"]
    )
    time.sleep(after)
    phase = folder.status().get("phase")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    code = runs.end()
    if code == 0:
        return None
    with sqlite3.connect(folder.db_path) as db:
        whole = db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        if not schema.version(db):  # killed before there was anything to record
            return {
                "phase": phase,
                "record_whole": whole,
                "checkpoint_whole": True,
                "recorded_steps": 0,
                "steps_done_again": 0,
            }
        rows = [
            row[0]
            for row in db.execute("SELECT step FROM steps WHERE current AND kind = 'train' ORDER BY step")
        ]
        counts = {row[3] % row[2] == 0 for row in db.execute(WHOLE_STEPS)}
    newest = checkpoints.latest(folder)
    step = int(newest.name[5:]) if newest else 0
    return {
        "phase": phase,
        "record_whole": whole and rows == list(range(len(rows))) and counts <= {True},
        "checkpoint_whole": newest is None or not checkpoints.problem(newest),
        "recorded_steps": len(rows),
        "steps_done_again": max(0, len(rows) - step),
    }


if __name__ == "__main__":
    main()
