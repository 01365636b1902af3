"""From a model's name to a `Policy`: the network, its tokenizer, its frozen reference, and the facts the loop needs.

Real `from_pretrained` only: safetensors, no remote code. The embedded model is one more local folder.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.models import embedded
from workbench.models.fast import packing
from workbench.models.fast.norms import replace_rms_norms

DTYPES: dict[str, torch.dtype | str] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": "auto"}


@dataclass(slots=True)
class Policy:
    """A causal language model in training, with the frozen reference it is pulled towards."""

    model: Any
    """The trained network: a PreTrainedModel, or a PeftModel around one."""
    tokenizer: Any
    device: torch.device
    eos_ids: frozenset[int]
    """Every id that ends an answer; models may have several."""
    pad_id: int
    context: int
    """Most positions the network accepts."""
    is_lora: bool = False
    reference: Any = None
    """Frozen copy; None where none is needed, and with LoRA, where the adapter switched off is the reference unless it moves."""
    initial: Any = None
    """Frozen copy of the start beside a reference that moves; None elsewhere, and with LoRA."""
    version: int = 0
    """Optimiser updates so far."""
    notes: list[str] = field(default_factory=list)
    """What had to be decided for this model, in words for the record."""

    @contextmanager
    def as_reference(self, *, initial: bool = False) -> Iterator[Any]:
        """The reference network, without gradient; `initial`: the policy as it was at the start, which differs from a
        reference that has moved. Raises ModelError where this policy was loaded without one."""
        kept = self.initial if initial else self.reference
        with torch.no_grad():
            if kept is not None:
                yield kept
            elif self.is_lora:
                with self.model.disable_adapter():
                    yield self.model
            else:
                raise ModelError(
                    "This policy has no reference: it was loaded for sampling only. Load it with a reference."
                )

    def trainable(self) -> list[torch.nn.Parameter]:
        """Parameters that the optimiser updates, in a fixed order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def model_source(name: str) -> str:
    """The folder or Hub id behind a model setting; `embedded` is the model that ships with the package."""
    return str(embedded.folder()) if name == "embedded" else name


def find_device(name: str) -> torch.device:
    """`auto` prefers CUDA, then MPS, then the CPU. Raises ModelError for a device this machine lacks."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if not present[name]:
        raise ModelError(
            f"device = {name}, but this machine has none. Here: {', '.join(k for k, v in present.items() if v)}."
        )
    return torch.device(name)


def load_policy(
    config: RunConfig, *, with_reference: bool = True, model: Any = None, tokenizer: Any = None
) -> Policy:
    """Load the run's model for training, or wrap a `model` and `tokenizer` already in memory.

    The reference is a frozen copy made from memory, so a model that was never saved works as well. Raises ModelError.
    """
    device = find_device(config.device)
    if model is None:
        model, tokenizer = load_pretrained(config.model, config.dtype)
    model.to(device)
    notes: list[str] = []
    eos_ids = _eos_ids(model, tokenizer)
    if not eos_ids:
        raise ModelError(
            f"model {config.model!r} names no end-of-sequence token, so answers could not end. "
            "Set eos_token in its tokenizer_config.json or eos_token_id in its generation_config.json."
        )
    if tokenizer.pad_token_id is None:
        # Padding never reaches the loss or the attention, so any id serves; the file on disk is left alone.
        notes.append(f"no pad token: id {min(eos_ids)} (end of sequence) stands in")
    pad_id = min(eos_ids) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    replace_rms_norms(model)
    if config.packed_update and (reason := packing.enable(model)):
        notes.append(
            f"answers are read padded, each with its prompt: packing leaves this model alone, because {reason}"
        )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = Policy(
        model=model,
        tokenizer=tokenizer,
        device=device,
        eos_ids=frozenset(eos_ids),
        pad_id=pad_id,
        context=context_length(model.config),
        notes=notes,
    )
    if with_reference and config.keeps_reference:
        policy.reference = _frozen(model)
        if config.reference_dtype != "same":
            policy.reference.to(DTYPES[config.reference_dtype])
    if with_reference and config.records_initial_kl and not config.use_peft:
        policy.initial = _frozen(model)
    if config.use_peft:
        policy.model = get_peft_model(model, _lora(config))
        policy.is_lora = True
    for module in policy.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    # Dropout would make the trainer's log-probabilities differ from the sampler's: the ratio must be 1 on policy.
    policy.model.eval()
    return policy


def _frozen(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False).eval()


def load_pretrained(name: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Model and tokenizer from a folder or the Hub: safetensors only, no remote code. Raises ModelError."""
    with _loadable(name):
        tokenizer = AutoTokenizer.from_pretrained(
            model_source(name), padding_side="left", trust_remote_code=False
        )
    return load_network(name, dtype), tokenizer


def load_network(name: str, dtype: str = "float32") -> Any:
    """The network alone: a checkpoint's reference has no tokenizer of its own. Raises ModelError."""
    transformers_logging.disable_progress_bar()  # a log file is no terminal
    with _loadable(name):
        return AutoModelForCausalLM.from_pretrained(
            model_source(name), dtype=DTYPES[dtype], use_safetensors=True, trust_remote_code=False
        )


@contextmanager
def _loadable(name: str) -> Iterator[None]:
    """What transformers says of a model that cannot be loaded, in one sentence with what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {name!r} could not be loaded: {first} Give a folder with config.json, a tokenizer and "
            "safetensors weights, a Hugging Face id that this machine can reach, or `embedded`."
        ) from error


def context_length(config: Any) -> int:
    """Positions the network accepts; models that name no limit get 2**31 - 1."""
    text = config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if isinstance(value := getattr(text, name, None), int) and value > 0:
            return value
    return 2**31 - 1


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    # Chat models often stop at an id that only generation_config names; counting it as text would mark every answer truncated.
    generation: GenerationConfig | None = getattr(model, "generation_config", None)
    named = [
        tokenizer.eos_token_id,
        getattr(generation, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
    ]
    found: set[int] = set()
    for value in named:
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return {int(value) for value in found}


def _lora(config: RunConfig) -> LoraConfig:
    targets: str | list[str] = config.lora_target_modules
    if targets != "all-linear":
        targets = [part.strip() for part in config.lora_target_modules.split(",") if part.strip()]
    return LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a plain Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads (with LoRA: the adapter)."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.save_pretrained(folder, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)


def merged(policy: Policy) -> Any:
    """The network with its adapter folded in; the network itself where there is none."""
    return policy.model.merge_and_unload() if isinstance(policy.model, PeftModel) else policy.model
