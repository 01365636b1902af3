"""Tiny random models of the real classes, and a tokenizer that needs no files."""

from typing import Any

import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from workbench.models.policy import Policy

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "eos_token_id": [1, 2],
    "pad_token_id": 0,
    "bos_token_id": None,
}
ARCHITECTURES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 8}),
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "mistral-sliding": (MistralForCausalLM, MistralConfig, {"head_dim": 8, "sliding_window": 8}),
}


class NumberTokenizer:
    """Writes token ids as decimal numbers."""

    eos_token_id, pad_token_id = 1, 0

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(str(int(i)) for i in ids)

    def save_pretrained(self, folder: Any) -> None:
        """Nothing to save."""


def tiny_model(architecture: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A random network with spread-out logits, so that samples differ and greedy choices are not near-ties."""
    model_class, config_class, extra = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SHAPE, **extra, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (
                "q_norm" not in name and "k_norm" not in name
            ):  # nine times the scores would only amplify rounding
                parameter.mul_(3.0)
    return model


def tiny_policy(architecture: str = "llama", seed: int = 0, **changes: Any) -> Policy:
    """A policy around `tiny_model`, without a reference."""
    model = tiny_model(architecture, seed, **changes)
    return Policy(
        model=model,
        tokenizer=NumberTokenizer(),
        device=torch.device("cpu"),
        eos_ids=frozenset([1, 2]),
        pad_id=0,
        context=model.config.max_position_embeddings,
    )
