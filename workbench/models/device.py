"""Where a model goes: the device of a `device` setting, found by accelerate, and whether its weights fit there.

In: a setting, a model's config. Out: a torch device, a size, or a ModelError that says what to change.
"""

from typing import Any, NamedTuple

import psutil
import torch
from accelerate import PartialState, init_empty_weights
from accelerate.utils import compute_module_sizes, patch_environment
from transformers import AutoModelForCausalLM

from workbench.core.errors import ModelError

SUPPORTED = ("cuda", "mps", "cpu")


class ModelSize(NamedTuple):
    """What a model's weights take, counted on its real classes."""

    parameters: int
    """Numbers, shared ones (tied embeddings) once."""
    bytes: int
    """Of parameters and buffers, in the type they are loaded in."""


def process_state() -> PartialState:
    """accelerate's view of this process, a singleton: the group of a run with several processes where one was opened
    (`train/process_group.py`), else one process alone.

    Without a group of our own no other must be opened, whatever an outer torchrun or mpirun has left in the environment.
    """
    with patch_environment(LOCAL_RANK=-1, PMI_SIZE=1):
        return PartialState()


def find_device(setting: str) -> torch.device:
    """The device of a setting `auto`, `cpu`, `cuda` or `mps`. Raises ModelError for one that this machine lacks."""
    accelerator = process_state().default_device.type
    found = [kind for kind in SUPPORTED if kind in (accelerator, "cpu")]
    if setting == "auto":
        return torch.device(found[0])
    if setting not in found:
        raise ModelError(f"device = {setting}, but this machine has none. Here: {', '.join(found)}.")
    return torch.device(setting)


def model_size(config: Any, dtype: torch.dtype) -> ModelSize:
    """The exact size of the model that a transformers config describes, from its classes on the meta device: no weight is
    made or read, no random number drawn."""
    with init_empty_weights(include_buffers=True):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return ModelSize(sum(p.numel() for p in model.parameters()), int(compute_module_sizes(model)[""]))


def free_bytes(device: torch.device) -> int:
    """Memory that this process could still take on a device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(psutil.virtual_memory().available)


def refuse_what_does_not_fit(name: str, size: ModelSize, device: torch.device) -> None:
    """Raises ModelError where the weights alone are larger than the memory that is left.

    accelerate could put the rest into main memory or onto disk (`device_map="auto"`), but weights that are brought in for a forward
    pass and dropped behind it get no gradient.
    """
    free = free_bytes(device)
    if size.bytes > free:
        raise ModelError(
            f"model {name!r} has {size.parameters:,} parameters, {size.bytes / 2**30:.1f} GiB of weights alone, and {device.type} has "
            f"{free / 2**30:.1f} GiB free. Weights that are kept elsewhere cannot be trained. Choose a smaller model, set dtype to "
            "bfloat16, or another device."
        )
