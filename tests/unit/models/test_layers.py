"""The layers whose derivatives are written down, against the library's forward and against finite differences."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.tiny import tiny_model
from workbench.models.fast import layers, packing
from workbench.models.logprobs import Sequences, backbone

BIASED = {"attention_bias": True, "mlp_bias": True}
MODELS = {"llama": ("llama", {}), "llama with biases": ("llama", BIASED), "qwen3": ("qwen3", {})}


def pack_of(lengths=(9, 5, 7, 3)):
    random = np.random.default_rng(0)
    prompts = [(3, 4, 5, 6, 7), (3, 4, 5, 6, 7), (8, 9), (8, 9)]
    completions = [random.integers(3, 64, size=length).astype(np.int32) for length in lengths]
    return packing.build_pack(Sequences(prompts, completions), np.arange(4), torch.device("cpu"))


def packed_model(name, dtype=torch.float32):
    architecture, changes = MODELS[name]
    model = tiny_model(architecture, **changes)
    assert packing.enable(model) is None
    return model.to(dtype)


def value_and_gradients(model, pack, direction_ND):
    """Value of <direction, hidden states>, and the gradients of everything it depends on."""
    embeddings_TD = model.get_input_embeddings().weight.detach()[pack.ids_T].requires_grad_()
    value = (packing.hidden_states(model, pack, embeddings_TD) * direction_ND).sum()
    value.backward()
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(value.detach()), {**named, "embeddings": embeddings_TD.grad}


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_the_library(name, monkeypatch):
    pack, direction_ND = pack_of(), torch.randn(24, 32, generator=torch.Generator().manual_seed(1))
    model = packed_model(name)
    assert layers.can_run(model, backbone(model))
    value, ours = value_and_gradients(model, pack, direction_ND)
    monkeypatch.setattr(layers, "can_run", lambda *_: False)
    expected_value, expected = value_and_gradients(packed_model(name), pack, direction_ND)
    assert value == pytest.approx(expected_value, rel=1e-5)
    assert ours.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for where, gradient in expected.items():
        torch.testing.assert_close(
            ours[where], gradient, atol=1e-5 * scale, rtol=1e-4, msg=lambda m, w=where: f"{w}: {m}"
        )


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_slopes_of_the_values(name):
    pack = pack_of()
    model = packed_model(name, torch.float64)
    backbone(model).norm = torch.nn.Identity()  # the library's own rounds to float32
    direction_ND = torch.randn(24, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, gradients = value_and_gradients(model, pack, direction_ND)
    random = torch.Generator().manual_seed(2)
    for where, parameter in model.named_parameters():
        if where not in gradients or "embed" in where:
            continue
        step = 1e-5 * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter += sign * step
                values.append(float((packing.hidden_states(model, pack) * direction_ND).sum()))
        slope = float((gradients[where] * step).sum())
        assert (values[0] - values[1]) / 2 == pytest.approx(slope, rel=1e-5, abs=1e-8), where


def test_gradients_are_added_to_those_that_are_there():
    pack, direction_ND = pack_of(), torch.ones(24, 32)
    model = packed_model("qwen3")
    once = {
        where: gradient.clone()
        for where, gradient in value_and_gradients(model, pack, direction_ND)[1].items()
    }
    twice = value_and_gradients(model, pack, direction_ND)[1]
    for where, gradient in once.items():
        times = 1 if where == "embeddings" else 2
        torch.testing.assert_close(twice[where], times * gradient, msg=lambda m, w=where: f"{w}: {m}")


def test_they_keep_at_most_two_thirds_of_what_the_library_keeps(monkeypatch):
    def kept(model):
        storages = {}
        weights = {parameter.data_ptr() for parameter in model.parameters()}

        def note(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage
            return tensor

        pack = pack_of(lengths=(60, 60, 60, 60))
        embeddings_TD = model.get_input_embeddings().weight.detach()[pack.ids_T].requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            packing.hidden_states(model, pack, embeddings_TD)
        return sum(storage.nbytes() for storage in storages.values())

    ours = kept(packed_model("qwen3"))
    monkeypatch.setattr(layers, "can_run", lambda *_: False)
    assert ours < kept(packed_model("qwen3")) * 2 / 3


def test_adapters_other_shapes_and_lower_precision_are_left_to_the_library():
    plain = tiny_model("llama")
    assert layers.can_run(plain, backbone(plain))
    assert not layers.can_run(plain.to(torch.bfloat16), backbone(plain))
    plain.to(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not layers.can_run(plain, backbone(plain))
    plain.lm_head.weight.requires_grad_(False)
    backbone(plain).layers[0].mlp.up_proj.weight.requires_grad_(False)
    assert not layers.can_run(plain, backbone(plain))
    with torch.no_grad():
        assert layers.can_run(plain, backbone(plain))
    for architecture in ("gemma", "qwen3-moe", "mistral-sliding"):
        model = tiny_model(architecture)
        assert not layers.can_run(model, backbone(model)), architecture
    adapted = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        assert not layers.can_run(adapted, backbone(adapted))
