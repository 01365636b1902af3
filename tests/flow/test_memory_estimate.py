"""The estimate of memory against a real run in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_estimate_is_near_the_measured_peak_of_a_small_run(tmp_path):
    make = f"import sys; sys.path.insert(0, {str(BENCHMARKS / 'peer')!r}); import make_models as m; m.build('A', 0.02, {str(tmp_path / 'A')!r}); "
    make += f"m.prompts('A', 32, 40, 60, {str(tmp_path / 'prompts.jsonl')!r})"
    subprocess.run([sys.executable, "-c", make], check=True, capture_output=True)
    command = [
        *(sys.executable, str(BENCHMARKS / "grpo_step.py"), "--model-dir", str(tmp_path / "A")),
        *("--prompts", str(tmp_path / "prompts.jsonl"), "--max-new", "64", "--steps", "2", "--warmup", "1"),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    whole = json.loads(done.stdout.strip().splitlines()[-1])
    # 15 % on a quiet machine (benchmarks/memory.py); here other tests run beside it.
    assert whole["estimated_above_loaded_model_mb"] == pytest.approx(
        whole["peak_above_loaded_model_mb"], rel=0.25
    )
