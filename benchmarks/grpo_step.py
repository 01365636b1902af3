"""Times steps of the real loop on any model folder and prompt file; the options and JSON keys of peer/bench_trl.py.

    python benchmarks/grpo_step.py --model-dir models/A --prompts models/prompts_A.jsonl --max-new 128 --steps 6 --warmup 1 --threads 1

It calls `workbench.train.grpo.train` itself on a run folder of its own: sampling, reward process, update, look back, checkpoint and record
included. A step ends where the loop says so; the last line printed is JSON.
"""

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from peer import common
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.launch import preflight
from workbench.models.load import load_policy
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.status import Status
from workbench.train import grpo

REWARD = '''"""The reward of common.reward_ids: share of even token ids, the end token (1) not counted in the length."""


def even(completion_ids):
    return [sum(1 for t in ids if t % 2 == 0) / max(1, sum(1 for t in ids if t != 1)) for ids in completion_ids]
'''


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--prompts", required=True, help="JSONL with a column prompt")
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--G", type=int, default=8)
    parser.add_argument("--max-new", type=int, default=128)
    parser.add_argument("--beta", type=float, default=0.04)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tag", default="workbench")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any further setting"
    )
    return parser.parse_args()


def main() -> None:
    a = options()
    torch.set_num_threads(a.threads)
    root = Path(tempfile.mkdtemp())
    (root / "even.py").write_text(REWARD)
    config = RunConfig.build(
        "trl-default",
        {
            "model": str(Path(a.model_dir).absolute()),
            "task": "data",
            "data": str(Path(a.prompts).absolute()),
            "prompt_column": "prompt",
            "template": "plain",
            "rewards": f"{root / 'even.py'}:even=1",
            "prompts_per_step": a.prompts_per_step,
            "num_generations": a.G,
            "max_completion_length": a.max_new,
            "beta": a.beta,
            "learning_rate": a.lr,
            "lr_scheduler_type": "constant",
            "temperature": a.temperature,
            "steps": a.steps,
            "save_steps": a.steps + 1,
            "eval_problems": 0,
            "wandb": "off",
            "threads": a.threads,
            "device": a.device,
            "seed": a.seed,
            **dict(item.split("=", 1) for item in a.set),
        },
    )
    found = preflight.check(config)
    if found.problems:
        sys.exit(str(found.problems))
    folder = record.create(root / "runs", found.config, rewards=found.rewards, files=found.files)
    before = common.mem()
    tokenizer = AutoTokenizer.from_pretrained(a.model_dir, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(a.model_dir, dtype=torch.float32).to(a.device)
    for parameter in model.parameters():
        parameter.data.add_(0)  # touched, so that the mapped file is really in memory
    loaded = common.mem()
    grpo.load_policy = lambda settings: load_policy(settings, model=model, tokenizer=tokenizer)  # type: ignore[assignment]
    marks: list[tuple[float, float]] = []

    class Timed(Control):
        """Notes when the first step begins and when each one ends."""

        def phase(self, name: str, done: int = 0, total: int = 0) -> None:
            if name == "sample" and not marks:
                marks.append((time.perf_counter(), time.process_time()))
            super().phase(name, done, total)

        def progress(self, step: int, steps: int) -> None:
            common.sync()
            marks.append((time.perf_counter(), time.process_time()))
            super().progress(step, steps)

    reset = common.reset_peak()
    children = 0.0
    with Timed(folder, Status()) as control:
        grpo.train(folder.config(), folder, control)
        peak = common.mem()
        children = sum(child.memory_info().rss for child in psutil.Process().children(recursive=True)) / 2**20
    steps = measured(folder, marks)
    answers = sum(step["tokens"] for step in steps) / (len(steps) * a.prompts_per_step * a.G)
    print(
        json.dumps(
            common.summarize(
                steps,
                a.warmup,
                a.prompts_per_step * a.G,
                {
                    "engine": "workbench",
                    "tag": a.tag,
                    "args": vars(a),
                    "transformers": transformers.__version__,
                    "torch": torch.__version__,
                    "mem_before_model": before,
                    "mem_model_loaded": loaded,
                    "mem_end": peak,
                    "peak_reset_ok": reset,
                    "peak_rss_mb": peak["peak_rss_mb"],
                    "peak_above_loaded_model_mb": peak["peak_rss_mb"] - loaded["rss_mb"],
                    "estimated_above_loaded_model_mb": estimated(folder, tokenizer, answers),
                    "reward_process_rss_mb": children,
                },
            )
        )
    )
    shutil.rmtree(root)


def estimated(folder: Any, tokenizer: Any, answer: float) -> float:
    """What `estimate.memory` says of this run, knowing the lengths: MB above the loaded model."""
    config = folder.config()
    facts = estimate.facts(config.model)
    assert facts is not None
    with sqlite3.connect(folder.db_path) as db:
        texts = [text for (text,) in db.execute("SELECT prompt FROM prompts")]
    prompt = sum(len(tokenizer(text).input_ids) for text in texts) / len(texts)
    memory = estimate.memory(config, facts, estimate.Lengths(round(prompt), answer))
    return (memory.total - memory.runtime - memory.weights) / 2**20


def measured(folder: Any, marks: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """Seconds, CPU seconds, phases and tokens of each step."""
    with sqlite3.connect(folder.db_path) as db:
        rows = db.execute(
            "SELECT phases_json, (SELECT sum(length) FROM samples WHERE step_id = steps.id) FROM steps "
            "WHERE kind = 'train' AND current ORDER BY step"
        ).fetchall()
    return [
        {"sec": end[0] - start[0], "cpu": end[1] - start[1], "phases": json.loads(phases), "tokens": tokens}
        for start, end, (phases, tokens) in zip(marks[:-1], marks[1:], rows, strict=True)
    ]


if __name__ == "__main__":
    main()
