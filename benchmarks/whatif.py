"""How long a what-if question over 1,000 steps of 64 samples takes, from run.db alone.

Builds such a run with the real writer, then asks what the drawer asks: the first question (which reads the
record), and every other one. Prints one JSON line and keeps it in benchmarks/results/whatif.json.

    python benchmarks/whatif.py [--steps 1000] [--rounds 9]
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fakes import fake_config, make_step, token_text
from workbench.record.folder import RunFolder, create
from workbench.record.provenance import versions
from workbench.record.reader import Reader
from workbench.record.writer import Writer
from workbench.view.whatif.drawer import WhatIfDrawer

GROUPS, SAMPLES = 8, 8
RESULTS = Path(__file__).parent / "results"
QUESTIONS = {
    "smaller_group": ["num_generations=4"],
    "batch_std": ["scale_rewards=batch"],
    "leave_one_out": ["scale_rewards=none", "advantage_baseline=leave_one_out"],
    "gdpo_two_rewards": ["multi_objective_aggregation=normalize_then_sum", "rewards=correct=1,format=0.3"],
    "beta_in_reward": ["beta=0.05", "kl_in=reward"],
}


def build(root: str, steps: int) -> RunFolder:
    """A run of that many steps: 25 different ones, again and again."""
    config = fake_config(groups=GROUPS, samples=SAMPLES, steps=steps, keep_token_steps=1)
    stock = [make_step(i * 2, groups=GROUPS, samples=SAMPLES, config=config) for i in range(25)]
    folder = create(root, config)
    with Writer(folder, config, token_text=token_text) as writer:
        for step in range(steps):
            writer.step(dataclasses.replace(stock[step % 25], step=step))
    return folder


def spent(drawer: WhatIfDrawer, reader: Reader, sets: list[str], steps: int) -> tuple[float, float]:
    """Wall and CPU milliseconds of one question, its answer as JSON included."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = json.loads(json.dumps(drawer.recompute(reader, sets, steps // 2)))
    assert len(answer["steps"]) == steps and answer["samples"] == steps * GROUPS * SAMPLES
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as root:
        reader = Reader(build(root, options.steps))
        cold = [
            spent(WhatIfDrawer(), reader, QUESTIONS["smaller_group"], options.steps)
            for _ in range(options.rounds)
        ]
        asked = {"first_question": cold}
        drawer = WhatIfDrawer()
        spent(drawer, reader, [], options.steps)
        for name, sets in QUESTIONS.items():
            asked[name] = [spent(drawer, reader, sets, options.steps) for _ in range(options.rounds)]
    for name, times in asked.items():
        walls, cpus = zip(*times, strict=True)
        found[name] = {
            "wall_ms": round(statistics.median(walls), 1), "wall_ms_worst": round(max(walls), 1),
            "cpu_ms": round(statistics.median(cpus), 1),
        }  # fmt: skip
    result = {
        "steps": options.steps, "samples_per_step": GROUPS * SAMPLES, "questions": found, "versions": versions(),
        "cpus": os.cpu_count(), "machine": platform.machine(),
        "load": [round(value, 1) for value in os.getloadavg()], "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "whatif.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
