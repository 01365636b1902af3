"""Runs that are killed anywhere and go on: what they end with is bit for bit what the uninterrupted run ends with."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.core.config import RunConfig
from workbench.launch import preflight
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "steps": 6, "save_steps": 3, "eval_steps": 3, "prompts_per_step": 3, "num_generations": 4, "num_iterations": 2,
    "steps_per_generation": 2, "max_completion_length": 20, "eval_problems": 3, "watched_prompts": 1, "watched_samples": 2,
    "learning_rate": 1e-3, "beta": 0.04, "wandb": "off", "device": "cpu", "threads": 1, "seed": 3, "temperature": 1.0,
}  # fmt: skip
# One before the checkpoint, one at its very boundary, two beyond it.
EDITS = {
    "1": {"learning_rate": 5e-4},
    "3": {"temperature": 0.8},
    "4": {"beta": 0.1, "num_generations": 3},
    "5": {"beta": 0.02},
}


class Runs:
    """Real workers on small runs of the embedded model, forked from one process that has torch already."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.report = preflight.check(RunConfig.build("embedded", SETTINGS | settings))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.run_victim"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip

    def create(self) -> RunFolder:
        return record.create(
            self.root, self.report.config, rewards=self.report.rewards, files=self.report.files
        )

    def work(self, folder: RunFolder, kill: tuple[str, int] | None = None) -> int:
        """Let a worker work on it until it ends; returns its exit code (-9: killed)."""
        self.begin(folder, kill)
        return self.end()

    def begin(self, folder: RunFolder, kill: tuple[str, int] | None = None) -> None:
        """As `work`, without waiting."""
        assert self.process.stdin is not None
        self.process.stdin.write(
            json.dumps({"folder": str(folder.path), "kill": kill, "edits": EDITS}) + "\n"
        )
        self.process.stdin.flush()

    def end(self) -> int:
        """The exit code of what was begun."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    made = Runs(tmp_path_factory.mktemp("runs"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def straight(runs: Runs) -> RunFolder:
    """The run that nobody interrupts."""
    folder = runs.create()
    assert runs.work(folder) == 0, folder.log_tail()
    return folder


def left_behind(folder: RunFolder) -> dict[str, Any]:
    """Everything a run leaves that does not tell the time: weights, optimiser, samples, tokens, metrics."""
    reader = Reader(folder)
    found: dict[str, Any] = {
        f"checkpoint {path.name}": path.read_bytes()
        for path in (folder.checkpoints / f"step-{folder.config().steps:06d}").glob("*.safetensors")
    }
    found |= {f"tokens {path.name}": path.read_bytes() for path in folder.tokens.iterdir()}
    found |= {f"final {path.name}": path.read_bytes() for path in folder.final.glob("*.safetensors")}
    for kind in ("train", "eval"):
        samples = reader.samples(kind=kind).sort_values(["step", "mode", "k", "id"], ignore_index=True)
        found[f"{kind} samples"] = samples.drop(
            columns=[c for c in samples if c in ("id", "step_id", "group_id")]
        ).to_json()
    metrics = reader.metrics().sort_values(["kind", "mode", "step"], ignore_index=True)
    timed = [
        name
        for name in metrics
        if name in ("attempt", "started", "seconds") or "time" in name or "per_second" in name
    ]
    found["metrics"] = metrics.drop(columns=timed).to_json()
    return found


def differences(one: RunFolder, two: RunFolder) -> list[str]:
    ours, theirs = left_behind(one), left_behind(two)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if ours[name] != theirs[name]]


POINTS = [
    ("an update", 22),  # step 5: second pass over the generation, of 4 updates a step
    ("sampling", 11),
    ("a reward", 7),
    ("a check", 3),  # the sampled one at step 3, before anything was saved: from the start again
    ("looking back", 5),
    ("collecting", 4),
    ("a checkpoint", 1),  # between its files
    ("the last rename of a checkpoint", 1),
]
QUICK = ("an update", "the last rename of a checkpoint")
"""Points that the quick part of the suite kills at: in the middle of a step, and while something is saved."""


@pytest.mark.parametrize(
    ("point", "times"),
    [pytest.param(*at, marks=[] if at[0] in QUICK else pytest.mark.slow) for at in POINTS],
)
def test_case_40_a_run_killed_at_any_point_ends_bit_equal_to_the_uninterrupted_one(
    runs: Runs, straight: RunFolder, point: str, times: int
) -> None:
    broken = runs.create()
    assert runs.work(broken, (point, times)) == -signal.SIGKILL, broken.log_tail()
    assert runs.work(broken) == 0, broken.log_tail()
    assert differences(straight, broken) == []


@pytest.mark.slow
def test_case_40_an_adapter_whose_reference_moves_goes_on_bit_equal_too(tmp_path: Path) -> None:
    runs = Runs(tmp_path, use_peft=True, sync_ref_model=True, ref_model_sync_steps=2)
    try:
        straight, broken = runs.create(), runs.create()
        assert runs.work(straight) == 0, straight.log_tail()
        assert runs.work(broken, ("an update", 19)) == -signal.SIGKILL, broken.log_tail()
        assert runs.work(broken) == 0, broken.log_tail()
        assert differences(straight, broken) == []
    finally:
        runs.close()


def test_steps_that_the_record_lost_before_a_checkpoint_are_computed_again(
    runs: Runs, straight: RunFolder
) -> None:
    broken = runs.create()
    assert runs.work(broken, ("an update", 14)) == -signal.SIGKILL, broken.log_tail()
    assert (broken.checkpoints / "step-000003").is_dir()
    for part in ("", "-wal", "-shm"):  # a power cut takes commits that were not synced; here all of them
        broken.db_path.with_name(broken.db_path.name + part).unlink(missing_ok=True)
    assert runs.work(broken) == 0, broken.log_tail()
    assert Reader(broken).steps("train") == [0, 1, 2, 3, 4, 5]
    [started] = Reader(broken).events(kind="started")
    assert started["data"]["notes"] == [
        "The record lacks steps 0 to 2, which lie before checkpoint step-000003; they are computed again from the base model on"
    ]
    assert differences(straight, broken) == []
