"""Training mode without chance: what gradient checkpointing switches on, and what it must not."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import NumberTokenizer, tiny_model
from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.models import randomness
from workbench.models.load import load_policy

IDS = {"vocab_size": 64, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS: dict[str, dict[str, Any]] = {
    "opt": {**WIDE, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.5, "layerdrop": 0.5},
    "falcon": {**WIDE, "hidden_dropout": 0.5, "attention_dropout": 0.5},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.5, "attention_dropout": 0.5},
    "persimmon": {**WIDE, "intermediate_size": 64, "hidden_dropout": 0.5, "attention_dropout": 0.5},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "mixtral": {
        **WIDE, "num_key_value_heads": 2, "intermediate_size": 64, "num_local_experts": 4, "router_jitter_noise": 0.5,
    },
}  # fmt: skip
IDS_14 = torch.tensor([[5, 9, 20, 33, 8, 7, 41, 2, 3, 11, 30, 29, 50, 4]])


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_recomputes_and_leaves_log_probabilities_and_gradients_as_they_are(kind: str) -> None:
    def loaded(checkpointing: bool) -> Any:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**IDS, **KINDS[kind]}))
        config = RunConfig.build("trl-default", {"device": "cpu", "gradient_checkpointing": checkpointing})
        policy = load_policy(config, model=model, tokenizer=NumberTokenizer())
        randomness.set_training(policy.model, checkpointing)
        return policy.model

    def logits_and_gradients(model: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        logits = model(input_ids=IDS_14, use_cache=False).logits
        logits.square().mean().backward()
        return logits.detach(), [weight.grad for weight in model.parameters()]

    plain, plain_gradients = logits_and_gradients(loaded(False))
    model = loaded(True)
    ours, gradients = logits_and_gradients(model)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    for a, b in zip(gradients, plain_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_layers_are_recomputed_in_training_mode_and_only_there() -> None:
    model = tiny_model()
    randomness.enable_checkpointing(model)
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda module, args: calls.append(module.training))
    for checkpointing, expected in ((True, 2), (False, 1)):
        calls.clear()
        randomness.set_training(model, checkpointing)
        model(input_ids=IDS_14, use_cache=False).logits.sum().backward()
        assert calls == [False] * expected


def test_randomness_that_cannot_be_switched_off_is_refused_with_its_size() -> None:
    model = tiny_model()
    randomness.enable_checkpointing(model)
    noisy = model.model
    plain = noisy.forward

    def forward(*args: Any, **more: Any) -> Any:
        out = plain(*args, **more)
        if noisy.training:
            out.last_hidden_state = nn.functional.dropout(out.last_hidden_state, 0.5, training=True)
        return out

    noisy.forward = forward
    with pytest.raises(ModelError, match="gradient_checkpointing = true changes this model's logits by"):
        randomness.refuse_noise(model)
    assert not any(module.training for module in model.modules())
