"""Trained networks without chance: dropout, layer drop and jitter off in whatever form they have, and gradient checkpointing that
switches nothing else on.

In: a network. Out: the same network, whose forward pass gives the same numbers in training as in evaluation.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.modules.dropout import _DropoutNd

from workbench.core.errors import ModelError

_CHANCE = re.compile("drop|jitter")
"""Names of attributes that hold the probability of leaving something out, or the width of some noise."""


def switch_off(model: Any) -> None:
    """Dropout would make the trainer's log-probabilities differ from the sampler's: the ratio must be 1 on policy."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and _CHANCE.search(name):
                setattr(module, name, 0.0)
    model.eval()


def enable_checkpointing(model: Any) -> None:
    """Recompute activations in the backward pass. Raises ModelError where the model cannot, or where its figures would change."""
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"gradient_checkpointing = true, but this model does not offer it ({str(error).splitlines()[0]}). Set it to false."
        ) from error
    for module in model.modules():
        if (recompute := getattr(module, "_gradient_checkpointing_func", None)) is not None:
            module._gradient_checkpointing_func = _Quiet(module, recompute)


def set_training(model: Any, checkpointing: bool) -> None:
    """Training mode: only modules that recompute are in it, and only where recomputing is wanted."""
    model.eval()
    if checkpointing:
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                module.training = True


def refuse_noise(model: Any) -> None:
    """Compare a forward pass that recomputes with a plain one. Raises ModelError where they differ."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ids = torch.from_numpy(np.random.default_rng(0).integers(vocabulary, size=(1, 6)))
    ids = ids.to(next(model.parameters()).device)
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits.float()
    set_training(model, True)
    devices = [ids.device] if ids.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        apart = max(
            float((model(input_ids=ids, use_cache=False).logits.float() - plain).detach().abs().max())
            for _ in range(2)
        )
    model.eval()
    if not apart <= (1e-4 if next(model.parameters()).dtype == torch.float32 else 1e-2) * max(
        1.0, float(plain.abs().max())
    ):
        raise ModelError(
            f"gradient_checkpointing = true changes this model's logits by {apart:.1e}: its training mode drops or disturbs "
            "something that cannot be switched off from here. Set gradient_checkpointing to false."
        )


class _Quiet:
    """A module's function for recomputing, inside which the module itself is in evaluation mode: `training` would switch dropout on."""

    def __init__(self, module: Any, recompute: Callable[..., Any]) -> None:
        self.module, self.recompute = module, recompute

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def quiet(*inner: Any, **named: Any) -> Any:
            was, self.module.training = self.module.training, False
            try:
                return function(*inner, **named)
            finally:
                self.module.training = was

        return self.recompute(quiet, *args, **kwargs)
