"""Random token batches with everything a loss may meet: ragged answers and groups, an empty row, both signs,
clipped ratios."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.algorithm.token_grads import Normalizer, Objective, normalizer
from workbench.core import variants

CLIPS: list[dict[str, Any]] = [
    {},
    {"epsilon": 0.2, "epsilon_high": 0.28},
    {"delta": 1.3},
    {"delta": 1.1},
    {"dual_clip": 1.25},
    {"epsilon": 3e-4, "epsilon_high": 4e-4},
    {"epsilon": 0.1, "epsilon_high": 1.2},
]
PENALTIES: list[dict[str, Any]] = [{}] + [
    {"beta": 0.3, "kl_estimator": name} for name in ("k1", "k2", "k3", "k1_ratio", "k2_ratio", "k3_ratio")
]
CORRECTIONS: list[dict[str, Any]] = [
    {},
    {"importance_sampling_correction": "token_truncate", "importance_sampling_clip_max": 1.2},
    {
        "importance_sampling_correction": "token_mask",
        "importance_sampling_clip_max": 1.2,
        "importance_sampling_clip_min": 0.8,
    },
    {
        "importance_sampling_correction": "sequence_truncate",
        "importance_sampling_clip_max": 1.5,
        "importance_sampling_clip_min": 0.7,
    },
    {"importance_sampling_correction": "sequence_mask", "importance_sampling_clip_max": 1.5},
    {"off_policy_mask_threshold": 0.02},
    {"importance_sampling_correction": "token_truncate", "off_policy_mask_threshold": 0.02},
]


class Batch(NamedTuple):
    """Arguments of loss_grads and loss, (B, T) unless named otherwise."""

    logp: Any
    old: Any
    ref: Any
    sampler: Any
    advantages_B: Any
    mask: Any
    group_ids_B: Any

    def terms(self, objective: Objective, n: Normalizer | None = None) -> tuple[Any, ...]:
        """In the order of loss_grads."""
        return (*self[:6], objective, n or self.normalizer())

    def normalizer(self, **more: Any) -> Normalizer:
        return normalizer(self.mask.sum(1), self.group_ids_B, **more)

    def rows(self, index: Any) -> "Batch":
        return Batch(*(part[index] for part in self))

    def torch(self, dtype: torch.dtype = torch.float64) -> "Batch":
        return Batch(
            *(torch.as_tensor(part, dtype=dtype) for part in self[:6]), torch.as_tensor(self.group_ids_B)
        )


def random_batch(seed: int = 0, samples: int = 7, tokens: int = 5) -> Batch:
    """In numpy float64. Row 2 is empty; one advantage is zero."""
    rng = np.random.default_rng(seed)
    shape = (samples, tokens)
    logp = -rng.exponential(1.0, shape) - 0.05
    lengths = rng.integers(1, tokens + 1, samples)
    lengths[2 % samples] = 0
    advantages = rng.normal(0, 1, samples)
    advantages[-1] = 0.0
    return Batch(
        logp,
        logp + rng.normal(0, 0.3, shape),
        logp + rng.normal(0, 0.7, shape),
        logp + rng.normal(0, 0.4, shape),
        advantages,
        (np.arange(tokens)[None, :] < lengths[:, None]).astype(float),
        np.sort(rng.integers(0, 3, samples)),
    )


def objectives(loss_type: str, level: str) -> Iterator[Objective]:
    """Seven settings that meet every clip, penalty and correction once."""
    for number, clip in enumerate(CLIPS):
        yield Objective(
            loss_type=loss_type,
            importance_sampling_level=level,
            max_completion_length=9,
            **clip,
            **PENALTIES[(number + 3) % 7],
            **CORRECTIONS[3 * number % 7],
        )


def paired_objectives(loss_type: str, level: str) -> Iterator[Objective]:
    """Every pair of a clip, a penalty and a correction (a Latin square)."""
    for i, clip in enumerate(CLIPS):
        for j, correction in enumerate(CORRECTIONS):
            yield Objective(
                loss_type=loss_type,
                importance_sampling_level=level,
                max_completion_length=9,
                **clip,
                **PENALTIES[(i + 3 * j) % len(PENALTIES)],
                **correction,
            )


LOSSES = list(variants.LOSSES)
LEVELS = ["token", "sequence"]
