"""The optimiser that a setting names, and its learning rate by step. In: parameters and a RunConfig. Out: a `torch.optim.Optimizer` whose state is tensors only, so
that checkpoints need no pickle.
"""

import math
from collections.abc import Iterable

import torch
from torch.optim import SGD, Adafactor, AdamW, Optimizer

from workbench.core.config import RunConfig


def optimizer(parameters: Iterable[torch.nn.Parameter], config: RunConfig, device: torch.device) -> Optimizer:
    """`config.optim` over these parameters. The learning rate is set anew at each update."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optim == "sgd":
        return SGD(parameters, lr=rate, weight_decay=decay)
    if config.optim == "adafactor":
        return Adafactor(parameters, lr=rate, weight_decay=decay)
    return AdamW(
        parameters,
        lr=rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=decay,
        fused=config.optim == "adamw_torch_fused" and device.type in ("cpu", "cuda"),
    )


def scheduled(config: RunConfig, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, linear to 0, or half a cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[
        config.lr_scheduler_type
    ]
    return config.learning_rate * max(0.0, factor)
