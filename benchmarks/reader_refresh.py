"""How long a dashboard's questions take on the server, on a run with 100,000 samples (or `--samples
1000000`).

Builds such a run with the real writer, then asks what a page asks: the first page, a refresh after one more
step, a group, a prompt, a search. Prints one JSON line and keeps it in benchmarks/results/.

    python benchmarks/reader_refresh.py [--samples 100000] [--rounds 30]
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fakes import fake_config, make_step, token_text
from workbench.diagnose.verdict import of_run
from workbench.record.folder import RunFolder, create
from workbench.record.provenance import versions
from workbench.record.reader import Reader
from workbench.record.search import Filters
from workbench.record.writer import Writer

GROUPS, SAMPLES = 16, 12
RESULTS = Path(__file__).parent / "results"


def build(root: str, samples: int) -> tuple[RunFolder, dict[str, float]]:
    """A run of that many samples: 25 different steps, again and again, with a check every ten."""
    steps = samples // (GROUPS * SAMPLES)
    config = fake_config(groups=GROUPS, samples=SAMPLES, steps=steps, keep_token_steps=50)
    stock = [make_step(i * 2, groups=GROUPS, samples=SAMPLES, config=config) for i in range(25)]
    checks = [
        make_step(0, groups=GROUPS, samples=4, kind="eval", mode=mode, config=config)
        for mode in ("sampled", "greedy")
    ]
    folder = create(root, config)
    began, cpu = time.perf_counter(), time.process_time()
    with Writer(folder, config, token_text=token_text) as writer:
        for step in range(steps):
            if step % 10 == 0:
                for check in checks:
                    writer.step(dataclasses.replace(check, step=step))
            writer.step(dataclasses.replace(stock[step % 25], step=step))
    spent = {
        "write_wall_ms_per_step": 1000 * (time.perf_counter() - began) / steps,
        "write_cpu_ms_per_step": 1000 * (time.process_time() - cpu) / steps,
        "run_db_bytes_per_step": folder.db_path.stat().st_size / steps,
    }
    folder.write_status({"state": "running", "step": steps, "steps": steps})
    return folder, spent


def ask(question: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Wall and CPU milliseconds, median and worst of the rounds."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        question()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return {
        "wall_ms": round(statistics.median(walls), 2),
        "wall_ms_worst": round(max(walls), 2),
        "cpu_ms": round(statistics.median(cpus), 2),
        "cpu_ms_worst": round(max(cpus), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder, spent = build(root, options.samples)
        reader = Reader(folder)
        last = reader.last_step() or 0
        cursor = reader.series()["cursor"]
        prompt = reader.group(last, 0)["prompt_id"]

        def refresh() -> None:
            """One tick of a page that has seen all but the newest step."""
            assert reader.status and len(reader.series(cursor - 1)["train"]["step"]) == 1
            assert len(reader.ribbon(cursor - 1)["steps"]) == 1
            reader.groups(last), reader.events(0), reader.alarms(), of_run(reader)

        def first_page() -> None:
            (
                reader.config,
                reader.series(),
                reader.ribbon(),
                reader.groups(last),
                reader.alarms(),
                of_run(reader),
            )

        chosen = [*reader.series(since=cursor - 1)["train"]][1:25]
        questions: dict[str, Callable[[], Any]] = {
            "refresh": refresh,
            "first_page": first_page,
            "all_metrics": reader.series,
            "24_metrics": lambda: reader.series(names=chosen),
            "ribbon": reader.ribbon,
            "verdict": lambda: of_run(reader),
            "rows_of_a_step": lambda: reader.groups(last // 2),
            "one_group_with_tokens": lambda: reader.group(last, 3, arrays=True),
            "prompt_over_time": lambda: reader.prompt_history(prompt),
            "search_common_word": lambda: reader.search("answer"),
            "search_rare_text": lambda: reader.search("9*9+9*9"),
            "search_nothing": lambda: reader.search("zebra"),
            "filter_common": lambda: reader.search(filters=Filters(reward_min=1.0, length_min=40)),
            "filter_nothing": lambda: reader.search(filters=Filters(reward_min=5.0)),
        }
        found = {
            "samples": options.samples, "steps": last + 1,
            **{name: round(value, 2) for name, value in spent.items()},
            "questions": {name: ask(question, options.rounds) for name, question in questions.items()},
            "versions": versions(), "cpus": os.cpu_count(), "machine": platform.machine(),
            "load": [round(value, 1) for value in os.getloadavg()], "date": time.strftime("%Y-%m-%d"),
        }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    name = f"reader_refresh_{options.samples}.json"
    (RESULTS / name).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
