"""Two real processes under torchrun: the run of one process, and one clear end when a process dies."""

import os
import signal
from pathlib import Path

import psutil
import pytest
import torch

from tests.flow.test_loop import SMALL, run, values, weights
from tests.helpers import wait_until
from tests.recorded import finish
from workbench import launch, preflight
from workbench.config import RunConfig
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader

SHARED = {
    **SMALL,
    "model": "embedded",
    "threads": 1,
    "learning_rate": 1e-4,
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


def test_a_run_of_two_processes_equals_the_run_of_one(tmp_path):
    two, one = start(tmp_path / "two"), run(tmp_path / "one", **SHARED)
    finish(two)
    ours, theirs = (
        Reader(folder).samples().sort_values(["step", "k", "idx"]).reset_index(drop=True) for folder in (two, one)
    )
    same = ["step", "k", "idx", "seed", "text", "reward"]
    assert ours[same].equals(theirs[same]) and len(ours) > 48  # some groups were extended
    for name in ("kl", "entropy", "loss", "grad_norm", "samples_drawn", "kl_initial"):
        assert values(two, name) == pytest.approx(values(one, name), abs=1e-5), name
    for name, tensor in weights(one.final).items():
        torch.testing.assert_close(weights(two.final)[name], tensor, atol=1e-6, rtol=0)
    assert values(two, "grad_norm")[0] > 0


@pytest.mark.parametrize("victim", ["a follower", "torchrun"])
def test_when_a_process_dies_the_run_fails_with_one_error_and_leaves_none_behind(victim, tmp_path):
    folder = start(tmp_path, steps=10_000, eval_problems=0)
    wait_until(lambda: launch.state(folder).step >= 1 or launch.state(folder).over, 120)
    ranks = processes(folder)
    assert sorted(ranks) == [0, 1]
    agent = psutil.Process(ranks[0].ppid())
    os.kill(ranks[1].pid if victim == "a follower" else agent.pid, signal.SIGKILL)
    wait_until(lambda: launch.state(folder).over, 60)
    ended = launch.state(folder)
    assert ended.state == "failed" and ("gone" in ended.reason or "died" in ended.reason)
    assert folder.error()["sentence"] == ended.reason
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ranks.values()), 60)


def test_several_processes_on_a_gpu_are_refused_before_the_start(monkeypatch):
    monkeypatch.setattr("workbench.launch.lease.device_kind", lambda setting: "cuda")
    report = preflight.check(RunConfig.build("trl-default", {**SHARED, "nproc": 2}))
    assert "on the CPU only" in report.problems["nproc"]
