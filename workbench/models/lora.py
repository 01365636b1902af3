"""LoRA adapters (2106.09685): a run's settings in, an adapter on the model out; and the weights that an adapter stands for."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError


def add_adapter(model: Any, config: RunConfig) -> Any:
    """The model inside a PeftModel with a new adapter; only the adapter's weights are trained. A starts at random, the same for one
    seed, and B at 0, so the model is at first what it was. Raises ModelError for modules that are not there, or that cannot be adapted."""
    targets: str | list[str] = config.lora_target_modules
    if targets != "all-linear":
        targets = [name.strip() for name in config.lora_target_modules.split(",") if name.strip()]
        _refuse_unknown(model, targets)
    adapter = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        try:
            return get_peft_model(model, adapter)
        except ValueError as error:
            raise ModelError(
                f"lora_target_modules = {config.lora_target_modules}: {str(error).splitlines()[0]} Linear layers of this model: "
                f"{', '.join(_linear_layers(model))}."
            ) from error


def _refuse_unknown(model: Any, targets: list[str]) -> None:
    found = {
        target: [
            module for name, module in model.named_modules() if name == target or name.endswith(f".{target}")
        ]
        for target in targets
    }
    if unknown := [target for target, modules in found.items() if not modules]:
        raise ModelError(
            f"lora_target_modules names {', '.join(unknown)}, which this model does not have. Linear layers there are: "
            f"{', '.join(_linear_layers(model))}; all-linear adapts every one but the output head."
        )
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return
    for target, modules in found.items():
        if any(module is head or module is embedding for module in modules):
            raise ModelError(
                f"lora_target_modules names {target}, but this model's output head and input embedding are one matrix "
                "(tie_word_embeddings): merging an adapter into it would change both, and the merged model would not be the trained "
                "one. Leave it out, or train all weights."
            )


def _linear_layers(model: Any) -> list[str]:
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
    )


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
