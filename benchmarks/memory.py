"""The estimate of memory against what a step really takes: `python benchmarks/memory.py [--models DIR]`.

For each work of peers.py, and for A and B without a reference, a few steps of the real loop in a process of their own (grpo_step.py): the
peak above the loaded model as the system counted it, and what `estimate.memory` says of the same run. Figures go to results/memory.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers import WORKS, Work, make_models
from surroundings import surroundings

from workbench.models import embedded

HERE = Path(__file__).parent
RESULT = HERE / "results" / "memory.json"
CASES: dict[str, tuple[Work, tuple[str, ...]]] = {
    "embedded": (WORKS["embedded"], ()),
    "A": (WORKS["A"], ()),
    "A without reference": (WORKS["A"], ("--beta", "0", "--set", "record_kl=false")),
    "A_full": (WORKS["A_full"], ()),
    "B": (WORKS["B"], ()),
    "B without reference": (WORKS["B"], ("--beta", "0", "--set", "record_kl=false")),
    "B_bf16": (WORKS["B_bf16"], ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="the random models of peers.py")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    around, found = surroundings(), {}
    with tempfile.TemporaryDirectory() as temporary:
        models = options.models or Path(temporary)
        make_models(models)
        for name in options.only:
            found[name] = compared(*CASES[name], models)
            print(name, found[name], flush=True)
    RESULT.write_text(json.dumps({**around, "cases": found}, indent=1) + "\n")


def compared(work: Work, more: tuple[str, ...], models: Path) -> dict[str, Any]:
    """Both figures of one work, MB above the loaded model."""
    model = embedded.folder() if work.model == "embedded" else models / work.model
    command = [
        *(sys.executable, str(HERE / "grpo_step.py"), "--model-dir", str(model)),
        *("--prompts", str(models / f"prompts_{work.prompts}.jsonl"), "--steps", "4", "--warmup", "1"),
        *work.arguments,
        *work.ours,
        *more,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    whole = json.loads(done.stdout.strip().splitlines()[-1])
    measured, estimated = (whole[f"{name}_above_loaded_model_mb"] for name in ("peak", "estimated"))
    return {"measured_mb": measured, "estimated_mb": estimated, "ratio": estimated / measured}


if __name__ == "__main__":
    main()
