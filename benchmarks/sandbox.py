"""One small job in a warm sandbox, and 64 jobs of ten tests each at once.

`python benchmarks/sandbox.py [--json]`; figures go to results/sandbox.json with hardware, versions, load.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from surroundings import surroundings

from workbench.sandbox.doctor import median_ms
from workbench.sandbox.job import Call, Job
from workbench.sandbox.pool import Sandbox

RESULT = Path(__file__).parent / "results" / "sandbox.json"
JOBS = 64
SOURCE = """
def solve(numbers):
    return sorted(numbers)[len(numbers) // 2]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    around = surroundings()
    calls = tuple(Call("solve", (list(range(n, n + 9)),)) for n in range(10))
    with Sandbox() as sandbox:
        median_ms(sandbox)  # warm
        jobs = [median_ms(sandbox) for _ in range(5)]
        batches = []
        for _ in range(5):
            began = time.perf_counter()
            results = sandbox.run_many([Job(SOURCE, calls) for _ in range(JOBS)])
            batches.append(time.perf_counter() - began)
            assert all(result.status == "ok" and result.values[3] == 7 for result in results)
        backend = sandbox.backend
    result = {
        **around,
        "backend": backend,
        "warm_job_median_ms_best": round(min(jobs), 2),
        "warm_job_median_ms_median": round(statistics.median(jobs), 2),
        "jobs_64_seconds_best": round(min(batches), 3),
        "jobs_64_seconds_median": round(statistics.median(batches), 3),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
