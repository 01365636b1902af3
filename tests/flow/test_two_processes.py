"""Two real processes under torchrun: the run of one process, and one clear end when a process dies."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from tests.flow.test_loop import SMALL, run, values, weights
from tests.helpers import wait_until
from tests.recorded import finish
from workbench.core.config import RunConfig
from workbench.launch import preflight
from workbench.models import embedded
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

SHARED = {
    **SMALL,
    "model": "embedded",
    "threads": 1,
    # Adam divides by the gradient's size: where that is rounding alone, it would move weights by rounding too.
    "learning_rate": 1e-5,
    "adam_epsilon": 1e-4,
    "steps": 3,
    "beta": 0.04,
    "steps_per_generation": 2,
    "adaptive_group_max": 8,
    "sync_ref_model": True,
    "ref_model_sync_steps": 2,
    "eval_steps": 3,
}


def start(root: Path, **changes: object) -> RunFolder:
    root.mkdir(parents=True, exist_ok=True)
    return preflight.start(RunConfig.build("trl-default", {**SHARED, "nproc": 2, **changes}), root)


def processes(folder: RunFolder) -> dict[int, psutil.Process]:
    """The run's training processes by rank."""
    leader = psutil.Process(folder.status()["pid"])
    return {int(p.environ()["RANK"]): p for p in psutil.Process(leader.ppid()).children()}


@pytest.mark.slow
def test_a_run_of_two_processes_equals_the_run_of_one(tmp_path):
    two, one = start(tmp_path / "two"), run(tmp_path / "one", **SHARED)
    finish(two)
    ours, theirs = (
        Reader(folder).samples().sort_values(["step", "k", "idx"]).reset_index(drop=True)
        for folder in (two, one)
    )
    same = ["step", "k", "idx", "seed", "text", "reward"]
    assert ours[same].equals(theirs[same]) and len(ours) > 48  # some groups were extended
    for name in ("kl", "entropy", "loss", "grad_norm", "samples_drawn", "kl_initial"):
        assert values(two, name) == pytest.approx(values(one, name), abs=1e-5), name
    before, together, alone = weights(embedded.folder()), weights(two.final), weights(one.final)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-6, rtol=0)
    assert max(float((tensor - before[name]).abs().max()) for name, tensor in alone.items()) > 4e-5
    assert values(two, "grad_norm")[0] > 0


def test_a_worker_dies_with_its_torchrun():
    # A parent that starts a process which watches it, tells its pid, and is then killed.
    child = "from workbench.launch import torchrun; import os, time; torchrun.exit_with_torchrun(); print(os.getpid(), flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        watching = psutil.Process(int(agent.stdout.readline()))
        agent.kill()
    wait_until(lambda: not alive(watching), 30, "the child is gone")


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_several_processes_on_a_gpu_are_refused_before_the_start(monkeypatch):
    monkeypatch.setattr("workbench.launch.lease.device_kind", lambda setting: "cuda")
    report = preflight.check(RunConfig.build("trl-default", {**SHARED, "nproc": 2}))
    assert "on the CPU only" in report.problems["nproc"]
