"""Scores 10,000 recorded answers again with a plain Python reward and computes all advantages again.

`PYTHONPATH=. python benchmarks/rescore.py [--json]`; figures, best of five, go to results/rescore.json with hardware, versions, load.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

from surroundings import surroundings

from tests.fakes import write_fake_run
from workbench.diagnose.rescoring import prepared, rescore, stream
from workbench.record.reader import Reader

RESULT = Path(__file__).parent / "results" / "rescore.json"
STEPS, GROUPS, SAMPLES = 50, 20, 10
REWARD = """
import re


def works(completion: str, answer: str) -> float:
    right = completion.endswith(f"<answer>{answer}</answer>")
    return float(right) + 0.1 * min(len(re.findall(r"[0-9]=[0-9]", completion)), 3)
"""


def cpu() -> float:
    """CPU seconds of this process and of those that ended below it."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def first_rows(reader: Reader) -> float:
    """Seconds until the first answers of the newest step are scored, reward processes started included."""
    began = time.perf_counter()
    with prepared(reader, REWARD) as sources:
        next(stream(reader, sources, since=STEPS - 1))
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    around = surroundings()
    with tempfile.TemporaryDirectory() as root:
        reader = Reader(write_fake_run(root, steps=STEPS, total=STEPS, groups=GROUPS, samples=SAMPLES))
        walls, cpus = [], []
        for _ in range(5):
            began, used = time.perf_counter(), cpu()
            found = rescore(reader, REWARD)
            walls.append(time.perf_counter() - began)
            cpus.append(cpu() - used)
        firsts = [first_rows(reader) for _ in range(5)]
    result = {
        **around,
        "samples": len(found.scores),
        "seconds_best": round(min(walls), 3),
        "seconds_median": round(statistics.median(walls), 3),
        "cpu_seconds_median": round(statistics.median(cpus), 3),
        "first_rows_seconds_best": round(min(firsts), 3),
        "first_rows_seconds_median": round(statistics.median(firsts), 3),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
