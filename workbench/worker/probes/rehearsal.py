"""Cost of a training step: one step on the longest prompts, timed."""

import contextlib
import importlib
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core.config import RunConfig
from workbench.core.errors import WorkbenchError
from workbench.core.types import Request, sample_seed
from workbench.prompts import task_of
from workbench.worker.probes.context import ProbeContext


def rehearsal(context: ProbeContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """One step on the longest prompts: seconds and peak memory of sampling and of the update. The policy that
    it changed is dropped."""
    if not context.owns_policy:
        raise WorkbenchError(
            "A rehearsal changes weights, so a training run cannot do it. Ask a probe worker."
        )
    update = importlib.import_module("workbench.train.update")
    config = context.config
    split = task_of(config).load(config)
    prompts = sorted(context.render(split.train), key=lambda prompt: -len(prompt.token_ids))[
        : config.prompts_per_step
    ]
    requests = [
        Request(
            prompt, tuple(sample_seed(config.seed, -2, prompt.id, i) for i in range(config.num_generations))
        )
        for prompt in prompts
    ]
    engine, updater = context.engine, update.Updater(context.policy, config)
    meter = Meter(context.policy.device)
    context.control.phase("sample")
    groups = engine.generate(
        requests, update.sampling_of(config), lambda done, total: context.control.phase("sample", done, total)
    )
    sampled = meter.lap()
    # Every other sample gets a positive advantage: the cost of an update does not depend on which.
    advantages_B = np.concatenate([np.where(np.arange(len(group)) % 2, 1.0, -1.0) for group in groups])
    context.control.phase("update")
    reference = updater.reference(groups, config) if config.needs_reference else None
    updater.step(groups, advantages_B, config, 0, reference_B_T=reference)
    updated = meter.lap()
    lengths = [rollout.length for group in groups for rollout in group.rollouts]
    context.drop_policy()
    return {
        "sample": sampled,
        "update": updated,
        "seconds": sampled["seconds"] + updated["seconds"],
        "peak_bytes": max(sampled["peak_bytes"], updated["peak_bytes"]),
        "answers": len(lengths),
        "mean_length": sum(lengths) / len(lengths),
        "longest_answer": max(lengths),
        "longest_prompt": len(prompts[0].token_ids),
        "step_seconds_at_limit": _at_limit(sampled, updated, lengths, config),
    }


class Meter:
    """Seconds and peak memory in bytes since the last lap: of the device where it counts them, else of this process."""

    def __init__(self, device: Any) -> None:
        self._cuda = importlib.import_module("torch").cuda if device.type == "cuda" else None
        self._start()

    def lap(self) -> dict[str, float]:
        """Measure up to now, and start again."""
        if self._cuda:
            self._cuda.synchronize()
        found = {"seconds": time.monotonic() - self._began, "peak_bytes": float(self._peak())}
        self._start()
        return found

    def _start(self) -> None:
        self._began = time.monotonic()
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark begins anew

    def _peak(self) -> int:
        if self._cuda:
            return int(self._cuda.max_memory_allocated())
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
                1 if sys.platform == "darwin" else 1024
            )


def _at_limit(
    sampled: Mapping[str, float], updated: Mapping[str, float], lengths: list[int], config: RunConfig
) -> float:
    """Seconds of a step in which every completion runs to the limit: the time of sampling grows with the longest completion,
    that of the update with the mean length."""
    longest, mean = max(1, max(lengths)), max(1.0, sum(lengths) / len(lengths))
    return (
        sampled["seconds"] * config.max_completion_length / longest
        + updated["seconds"] * config.max_completion_length / mean
    )
