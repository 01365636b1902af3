"""Ours against TRL on the same work, in turn, each in a process of its own: `python benchmarks/peers.py [--work A B ...] [--rounds 3] [--json]`.

One JSON line a work: `samples_per_second_ratio` (ours / TRL) and `peak_memory_ratio` (above the loaded model), both sides' figures,
completion lengths, versions, hardware, load; `without_look_back` is the first ratio without the pass that reads every answer again
after the update, which only our record has. Both sides run on one core with one thread; TRL at its fastest setting. Needs `.[peer]`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from workbench.models import embedded
from workbench.record.provenance import hardware, versions

HERE = Path(__file__).parent
RESULT = HERE / "results" / "peers.json"
LENGTHS_MAY_DIFFER = 0.15


class Work(NamedTuple):
    """What both sides do. Rates are low enough for lengths to stay those of the base model."""

    about: str
    model: str
    prompts: str
    arguments: tuple[str, ...]
    steps: int
    ours: tuple[str, ...] = ()


NO_LOOK_BACK = ("--set", "probe_every=0")
"""Ours without the pass that reads every answer again after the update; TRL has none."""
BF16 = ("--set", "reference_dtype=bfloat16", "--set", "update_dtype=bfloat16")
WORKS = {
    "embedded": Work(
        "the embedded model with its preset's step: 16 prompts x 12 answers",
        "embedded",
        "embedded",
        ("--prompts-per-step", "16", "--G", "12", "--max-new", "256", "--beta", "0"),
        6,
        # Text of a prompt file may not speak the chat's control tokens; the task renders them itself.
        ("--set", "task=chain", "--set", "template=chat"),
    ),
    "A": Work("3 M parameters, vocabulary 100, lengths vary", "A", "A", ("--max-new", "128"), 4),
    "A_full": Work("as A, every answer 128 tokens long", "A_full", "A", ("--max-new", "128"), 3),
    "B": Work("32 M parameters, vocabulary 50,000", "B", "B", ("--max-new", "64"), 2),
    "B_bf16": Work(
        "as B; ours with reference and body of the update in bfloat16", "B", "B", ("--max-new", "64"), 2, BF16
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--models", type=Path, help="keep the random models here (made where they are missing)"
    )
    parser.add_argument("--json", action="store_true", help="nothing but one JSON line a work")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(HERE.parent)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        models = options.models or Path(temporary)
        make_models(models)
        found = {}
        for name in options.work:
            # B_bf16 compares with the same TRL run as B.
            found[name] = compare(name, models, options.rounds, found.get("B") if name == "B_bf16" else None)
            print(json.dumps(found[name]) if options.json else told(found[name]), flush=True)
    if options.keep:
        kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        RESULT.write_text(json.dumps(kept | found, indent=1) + "\n")


def make_models(folder: Path) -> None:
    """Random models and prompts for A and B, and the embedded task's own prompts as text."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "prompts_B.jsonl").is_file():
        command = [sys.executable, str(HERE / "peer" / "make_models.py"), "--out", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not (folder / "prompts_embedded.jsonl").is_file():
        code = (
            "from workbench.core.config import RunConfig; from workbench.models import chat, load; from workbench.prompts import task_of\n"
            "import json; c = RunConfig.build('embedded'); _, t = load.load_pretrained('embedded')\n"
            "for p in chat.render(task_of(c).load(c).train, t, c.template, None, 1000): print(json.dumps({'prompt': p.text}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=HERE.parent
        )
        (folder / "prompts_embedded.jsonl").write_text(done.stdout)


def compare(name: str, models: Path, rounds: int, known: dict[str, Any] | None) -> dict[str, Any]:
    """Run both sides in turn. `known`: an earlier result on the same work, whose TRL rounds serve again."""
    work = WORKS[name]
    load = os.getloadavg()[0]
    ours, bare, theirs = [], [], known["rounds"]["trl"] if known else []
    for seed in range(rounds):
        ours.append(run("grpo_step.py", work, models, seed, work.ours))
        if not known:
            theirs.append(run("peer/bench_trl.py", work, models, seed, ()))
        bare.append(run("grpo_step.py", work, models, seed, (*work.ours, *NO_LOOK_BACK)))
    us, them, less = middle(ours), middle(theirs), middle(bare)
    lengths = us["completion_tokens_mean"] / them["completion_tokens_mean"]
    return {
        "work": name,
        "about": work.about,
        "samples_per_second_ratio": us["samples_per_s"] / them["samples_per_s"],
        "samples_per_cpu_second_ratio": us["samples_per_cpu_s"] / them["samples_per_cpu_s"],
        "tokens_per_cpu_second_ratio": us["completion_tokens_per_cpu_s"]
        / them["completion_tokens_per_cpu_s"],
        "without_look_back": less["samples_per_s"] / them["samples_per_s"],
        "peak_memory_ratio": us["peak_above_loaded_model_mb"] / them["peak_above_loaded_model_mb"],
        "completion_length_ratio": lengths,
        "lengths_comparable": abs(lengths - 1) <= LENGTHS_MAY_DIFFER,
        "ours": us,
        "trl": them,
        "rounds": {"ours": ours, "ours_without_look_back": bare, "trl": theirs},
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "versions": versions() | {"trl": version("trl")},
        "hardware": hardware(),
    }


def run(program: str, work: Work, models: Path, seed: int, more: tuple[str, ...]) -> dict[str, float]:
    """One side once, pinned to one core."""
    model = embedded.folder() if work.model == "embedded" else models / work.model
    command = [
        *([sys.executable, str(HERE / program), "--model-dir", str(model)]),
        *("--prompts", str(models / f"prompts_{work.prompts}.jsonl")),
        *("--steps", str(work.steps), "--warmup", "1", "--threads", "1", "--seed", str(seed)),
        *work.arguments,
        *more,
    ]
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    whole = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        key: whole[key]
        for key in (
            "samples_per_s",
            "samples_per_cpu_s",
            "sec_per_step_median",
            "cpu_sec_per_step_median",
            "completion_tokens_mean",
            "completion_tokens_per_cpu_s",
            "peak_above_loaded_model_mb",
        )
    }


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def told(row: dict[str, Any]) -> str:
    us, them = row["ours"], row["trl"]
    return (
        f"{row['work']:9} samples/s x {row['samples_per_second_ratio']:.2f} (CPU x {row['samples_per_cpu_second_ratio']:.2f}, "
        f"without look back x {row['without_look_back']:.2f}), "
        f"memory x {row['peak_memory_ratio']:.2f}: {us['sec_per_step_median']:.2f} s and {us['peak_above_loaded_model_mb']:.0f} MB "
        f"against {them['sec_per_step_median']:.2f} s and {them['peak_above_loaded_model_mb']:.0f} MB; "
        f"{us['completion_tokens_mean']:.0f} and {them['completion_tokens_mean']:.0f} tokens an answer; load {row['load_before']:.1f}"
    )


if __name__ == "__main__":
    main()
