"""From a model's name to a `Policy`: the network on its device, its tokenizer, its frozen reference, and the facts the loop needs.

Real `from_pretrained` only: safetensors, no remote code. The embedded model is one more local folder.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.models import chat, embedded, logprobs, randomness
from workbench.models.device import find_device, model_size, refuse_what_does_not_fit
from workbench.models.fast import packing
from workbench.models.fast.norms import replace_rms_norms
from workbench.models.lora import add_adapter
from workbench.models.policy import Policy

DTYPES: dict[str, torch.dtype | str] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": "auto"}
CPU = torch.device("cpu")


def model_source(name: str) -> str:
    """The folder or Hub id behind a model setting; `embedded` is the model that ships with the package."""
    return str(embedded.folder()) if name == "embedded" else name


def load_policy(config: RunConfig, *, model: Any = None, tokenizer: Any = None) -> Policy:
    """Load the run's model for training, or wrap a `model` and `tokenizer` already in memory.

    The reference is a frozen copy made from memory, so a model that was never saved works as well. Raises ModelError.
    """
    device = find_device(config.device)
    if model is None:
        model, tokenizer = load_pretrained(config.model, config.dtype, device)
    model.to(device)
    notes: list[str] = []
    eos_ids = _eos_ids(model, tokenizer)
    if not eos_ids:
        raise ModelError(
            f"model {config.model!r} names no end-of-sequence token, so completions could not end. "
            "Set eos_token in its tokenizer_config.json or eos_token_id in its generation_config.json."
        )
    if config.template == "chat" and (end := chat.turn_end(tokenizer)) is not None and end not in eos_ids:
        notes.append(
            f"the chat template ends a turn with {tokenizer.convert_ids_to_tokens(end)!r} (id {end}), which no file of the model names "
            "as an end: completions end with it too"
        )
        eos_ids.add(end)
    _name_stops(model, eos_ids)
    if tokenizer.pad_token_id is None:
        # Padding never reaches the loss or the attention, so any id serves; the file on disk is left alone.
        notes.append(f"no pad token: id {min(eos_ids)} (end of sequence) stands in")
    pad_id = min(eos_ids) if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    randomness.switch_off(model)
    replace_rms_norms(model)
    if config.packed_update and (reason := packing.enable(model)):
        notes.append(
            f"completions are read padded, each with its prompt: packing leaves this model alone, because {reason}"
        )
    text = model.config.get_text_config(decoder=True)
    if (named := getattr(text, "max_position_embeddings", 0) or 0) > (switch := rotation_switch(text)):
        notes.append(
            f"the context counts as {switch} of {named} tokens: beyond, this model's rotation depends on the longest sequence"
        )
    policy = Policy(
        model=model,
        tokenizer=tokenizer,
        device=device,
        eos_ids=frozenset(eos_ids),
        pad_id=pad_id,
        context=context_length(model.config),
        notes=notes,
    )
    if config.keeps_reference:
        policy.reference = _frozen_copy(model)
        if config.reference_dtype != "same":
            policy.reference.to(DTYPES[config.reference_dtype])
    if config.records_initial_kl and not config.use_peft:
        policy.initial = _frozen_copy(model)
    if config.use_peft:
        policy.model = add_adapter(model, config)
        policy.is_lora = True
        randomness.switch_off(policy.model)
    for network in (policy.model, policy.reference, policy.initial):
        if network is not None:
            logprobs.has_plain_head(network)  # tried now, while no other thread reads it
    if config.gradient_checkpointing:
        randomness.enable_checkpointing(policy.model)
        randomness.refuse_noise(policy.model)
    return policy


def load_pretrained(name: str, dtype: str = "float32", device: torch.device = CPU) -> tuple[Any, Any]:
    """Model and tokenizer from a folder or the Hub: safetensors only, no remote code. Raises ModelError, also where the weights
    are larger than the device's free memory."""
    source = model_source(name)
    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", trust_remote_code=False)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if (
            getattr(config, "quantization_config", None) is None
        ):  # what those take is known to their loader alone
            stored = config.dtype or torch.float32
            given = DTYPES[dtype]
            size = model_size(config, given if isinstance(given, torch.dtype) else stored)
            refuse_what_does_not_fit(name, size, device)
    return load_network(name, dtype, device), tokenizer


def load_network(name: str, dtype: str = "float32", device: torch.device = CPU) -> Any:
    """The network alone, its weights read straight onto the device: a checkpoint's reference has no tokenizer of its own.
    Raises ModelError."""
    transformers_logging.disable_progress_bar()  # a log file is no terminal
    with _explained(name):
        return AutoModelForCausalLM.from_pretrained(
            model_source(name),
            dtype=DTYPES[dtype],
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what transformers raises for a model that cannot be loaded into one sentence with what to do."""
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
            return min(value, rotation_switch(text))
    return 2**31 - 1


def rotation_switch(text: Any) -> int:
    """The longest sequence for which every position is rotated alike: beyond it, rotations that depend on the sequence's length change
    for tokens in the cache too, and the sampler's figures are no longer those of one forward pass. 2**31 - 1 without such a switch."""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    by_kind = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    switches = [
        part.get("original_max_position_embeddings")
        or getattr(text, "original_max_position_embeddings", None)
        for part in by_kind
        if (part.get("rope_type") or part.get("type")) in ("longrope", "su", "dynamic")
    ]
    return min([int(switch) for switch in switches if switch], default=2**31 - 1)


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a plain Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads (with LoRA: the adapter)."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.save_pretrained(folder, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)
    if policy.is_lora and (generation := getattr(policy.model.get_base_model(), "generation_config", None)):
        generation.save_pretrained(folder)  # an adapter's folder would not say where completions end


def _frozen_copy(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False).eval()


def _name_stops(model: Any, eos_ids: set[int]) -> None:
    """Whoever loads the saved model stops where training did; and saving it cannot fail on a generation_config that contradicts itself."""
    generation: GenerationConfig | None = getattr(model, "generation_config", None)
    if generation is None:
        return
    named = generation.eos_token_id
    if (set(named) if isinstance(named, list | tuple) else {named}) != eos_ids:
        generation.eos_token_id = sorted(eos_ids) if len(eos_ids) > 1 else min(eos_ids)
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True  # temperature and its kind contradict greedy search
        try:
            generation.validate(strict=True)
        except ValueError:
            model.generation_config = GenerationConfig(
                eos_token_id=generation.eos_token_id,
                pad_token_id=generation.pad_token_id,
                bos_token_id=generation.bos_token_id,
            )


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    # Chat models often stop at an id that only generation_config names; counted as text, it would mark every completion truncated.
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
