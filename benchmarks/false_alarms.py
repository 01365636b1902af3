"""Alarms in runs that learn as they should: `python benchmarks/false_alarms.py [--seeds 0 1 ...] [--runs DIR]`.

The default run with each seed. In a run that kept what it learned every alarm is a false one. A seed whose share of right answers fell by more than
BROKE was not healthy: its alarms are listed and counted apart. Observations (a grey i) ask for nothing and are counted apart too. The figures go to results/false_alarms.json with hardware and versions. A seed takes about two minutes; runs in DIR are used again.
"""

import argparse
import json
import tempfile
from pathlib import Path

from recording import alarms, broke, recorded

from workbench.launch.follow import summary
from workbench.record.provenance import hardware, versions

BROKE = 0.3
RESULT = Path(__file__).parent / "results" / "false_alarms.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    options = parser.parse_args()
    rows, steps, false, broken = [], 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            folder = recorded(options.runs or Path(temporary), f"healthy-{seed}", {"seed": seed})
            if folder is None:
                continue
            count, loud, info = alarms(folder)
            fall = broke(folder)
            if fall <= BROKE:
                steps, false = steps + count, false + len(loud)
            else:
                broken += 1
            config = folder.config()
            rows.append(
                {
                    "seed": seed,
                    "learning_rate": config.learning_rate,
                    "adam_epsilon": config.adam_epsilon,
                    "steps": count,
                    "largest_fall": round(fall, 3),
                    "heldout_sampled_last": summary(folder)["heldout_sampled_last"],
                    "alarms": [[c.step, c.name, c.finding.claim] for c in loud if c.finding],
                    "observations": [[c.step, c.name, c.finding.claim] for c in info if c.finding],
                }
            )
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    rate = 100 * false / max(1, steps)
    print(
        f"{false} false alarms in {steps} steps of {len(rows) - broken} healthy runs: {rate:.2f} per 100 steps; {broken} broke"
    )
    result = {
        "per_100_steps": rate,
        "false_alarms": false,
        "steps": steps,
        "broken_runs": broken,
        "runs": rows,
    }
    RESULT.write_text(
        json.dumps({**result, "hardware": hardware(), "versions": versions()}, indent=1, ensure_ascii=False)
        + "\n"
    )


if __name__ == "__main__":
    main()
