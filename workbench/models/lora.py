"""LoRA adapters (2106.09685): a run's settings in, an adapter on the model out; and the weights that an adapter stands for."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from workbench.core.config import RunConfig


def add_adapter(model: Any, config: RunConfig) -> Any:
    """The model inside a PeftModel with a new adapter; only the adapter's weights are trained. A starts at random, the same for one
    seed, and B at 0, so the model is at first what it was."""
    targets: str | list[str] = config.lora_target_modules
    if targets != "all-linear":
        targets = [name.strip() for name in config.lora_target_modules.split(",") if name.strip()]
    adapter = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        return get_peft_model(model, adapter)


def effective_weight(linear: Any) -> Tensor:
    """(out, in) weight W + (alpha / r) B A of a linear layer with its active adapters; W where it has none or they are switched off."""
    if not hasattr(linear, "get_base_layer"):
        return linear.weight.detach()  # type: ignore[no-any-return]
    weight: Tensor = linear.get_base_layer().weight.detach()
    if linear.disable_adapters:
        return weight
    for adapter in linear.active_adapters:
        if adapter in linear.lora_A:
            weight = weight + linear.get_delta_weight(adapter).detach()
    return weight
