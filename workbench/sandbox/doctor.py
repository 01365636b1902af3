"""Examines the sandbox: attacks, tricks and honest programs of its own, or any folder of programs.

Behind `workbench doctor --sandbox`. Out: plain dicts, ready for JSON.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from workbench.core.errors import SandboxError
from workbench.sandbox import probe, programs
from workbench.sandbox.compare import compare_exact
from workbench.sandbox.job import Call, Job, Limits
from workbench.sandbox.pool import Sandbox

QUESTION, ANSWER = Call("solve", (7,)), 49
SUITE = Limits(wall_s=10.0, memory_mb=128)
TIMED_JOBS = 30


def run_suite() -> dict[str, Any]:
    """Attack the sandbox with everything there is.

    {attacks, contained, escaped, tricks, tricks_failed, benign, benign_ok, median_ms, backend, seconds}:
    `tricks` are wrong solutions that try to pass, `median_ms` is the time of one small job in a sandbox that is running.
    """
    started = time.monotonic()
    with Sandbox(probed=False) as sandbox:
        attacks, tricks, benign = (programs.load(kind) for kind in ("attacks", "tricks", "benign"))
        escaped = probe.attempt(sandbox.run, attacks, SUITE)
        graded = [*tricks, *benign]
        jobs = [Job(item.source, (QUESTION,), limits=probe.limits_for(item, SUITE)) for item in graded]
        passed = {
            program.name: compare_exact(ANSWER, result.values[0])
            for program, result in zip(graded, sandbox.run_many(jobs), strict=True)
        }
        return {
            "attacks": len(attacks),
            "contained": len(attacks) - len(escaped),
            "escaped": sorted(escaped),
            "tricks": len(tricks),
            "tricks_failed": sum(not passed[trick.name] for trick in tricks),
            "benign": len(benign),
            "benign_ok": sum(passed[program.name] for program in benign),
            "median_ms": round(median_ms(sandbox), 2),
            "backend": sandbox.backend,
            "seconds": round(time.monotonic() - started, 2),
        }


def median_ms(sandbox: Sandbox) -> float:
    """Milliseconds from handing over a small job to its result."""
    times = []
    for _ in range(TIMED_JOBS):
        started = time.perf_counter()
        sandbox.run(Job("def solve(n): return n * n", (QUESTION,)))
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def run_programs(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Run each `*.py` of a folder as a job with empty input.

    {file name: {status, values, stdout_tail, wall, maxrss, error}}: `values` holds what it printed if it came
    to its end; wall in seconds, maxrss in bytes. SandboxError for a folder without programs.
    """
    paths = sorted(Path(folder).glob("*.py"))
    if not paths:
        raise SandboxError(
            f"no programs in {str(folder)!r}; expected is a folder with *.py files. Name another one."
        )
    sources = [path.read_bytes().decode("utf-8", "surrogateescape") for path in paths]
    with Sandbox() as sandbox:
        results = sandbox.run_many(Job(source) for source in sources)
    shown = ("status", "values", "stdout_tail", "wall", "maxrss", "error")
    return {
        path.name: {name: getattr(result, name) for name in shown}
        for path, result in zip(paths, results, strict=True)
    }
