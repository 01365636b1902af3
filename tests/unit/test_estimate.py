"""Model facts from headers alone, and memory by hand-made arithmetic."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import ARCHITECTURES, tiny_model
from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.models.device import model_size

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "intermediate_size": 16,
    "vocab_size": 50,
    "max_position_embeddings": 128,
}

# What a layer keeps of a token: its input and projections, 8 + (8 + 4 + 4); in attention, padded by .15: queries, keys, values and what
# was seen, 1.15 x (8 + 8 + 8), and keys and values again behind the prompt's, 1.15 x 2 x 8; then the middle, gate and up, 8 + 2 x 16.
KEPT = int(24 + 1.15 * 24 + 1.15 * 16 + 40)


def write_model(folder: Path, tensors: dict[str, tuple[str, list[int]]], **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**SHAPE, **config}))
    header = json.dumps(
        {"__metadata__": {"format": "pt"}}
        | {
            name: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]}
            for name, (kind, shape) in tensors.items()
        }
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", {"embed": ("BF16", [50, 8]), "norm": ("F32", [8])})


def test_facts_come_from_config_and_headers(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    assert (facts.parameters, facts.layers, facts.kv_heads, facts.head_size) == (50 * 8 + 8, 3, 1, 4)
    assert (facts.bytes_per_weight, facts.context, facts.architecture) == (2, 128, "LlamaForCausalLM")


def test_shards_add_up_and_vision_models_are_read_one_level_down(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "shards", {"a": ("F32", [10, 10])}, text_config=SHAPE)
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    facts = estimate.facts(str(folder))
    assert facts is not None and (facts.parameters, facts.hidden, facts.bytes_per_weight) == (200, 8, 4)


def test_without_weights_the_parameters_follow_from_the_shape(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bare", {}, tie_word_embeddings=True)
    (folder / "model.safetensors").unlink()
    facts = estimate.facts(str(folder))
    # Per layer: q 8x8, k 8x4, v 8x4, o 8x8, three MLP matrices 8x16, two norms of 8; then a final norm and
    # tied embeddings 50x8.
    assert facts is not None and facts.parameters == 3 * (64 + 32 + 32 + 64 + 3 * 128 + 16) + 8 + 400


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_headers_count_what_the_models_classes_count(architecture: str, tied: bool, tmp_path: Path) -> None:
    network = tiny_model(architecture, tie_word_embeddings=tied)
    network.save_pretrained(tmp_path)
    facts = estimate.facts(str(tmp_path))
    assert facts is not None
    assert facts.parameters == model_size(network.config, torch.float32).parameters


def test_without_weights_only_plain_decoders_are_counted_exactly(tmp_path: Path) -> None:
    guessed = {}
    for architecture in ("llama", "qwen3-moe"):
        network = tiny_model(architecture)
        network.config.save_pretrained(tmp_path / architecture)
        facts = estimate.facts(str(tmp_path / architecture))
        assert facts is not None
        guessed[architecture] = facts.parameters / model_size(network.config, torch.float32).parameters
    assert guessed["llama"] == 1 and guessed["qwen3-moe"] < 0.9


def test_full_training_holds_weights_gradients_two_moments_and_a_reference(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    config = RunConfig.build(
        overrides={
            "micro_batch_tokens": 64,
            "max_prompt_length": 32,
            "max_completion_length": 16,
            "prompts_per_step": 2,
            "num_generations": 4,
            "eval_problems": 4,
        }
    )
    memory = estimate.memory(config, facts)
    assert memory.weights == memory.gradients == memory.reference == 408 * 4
    assert memory.optimizer == 2 * 408 * 4
    # 48 tokens are one block of 64 columns; x rows x layers x (k, v) x heads x size x float32
    assert memory.kv_cache == 8 * 64 * 3 * 2 * 1 * 4 * 4
    # three tables of logits, and a copy of all but the embeddings
    assert memory.decoder == 3 * 4 * 8 * 50 + 8 * 4
    assert memory.logits == 4 * 4 * 64 * 50
    assert memory.activations == 64 * 4 * 3 * KEPT
    assert memory.post_update == 64 * 4 * KEPT + 2 * 4 * 64 * 50
    assert memory.sampling == memory.kv_cache + memory.decoder + memory.post_update
    assert memory.update == memory.gradients + memory.logits + memory.activations
    fixed = memory.runtime + memory.working + 4 * 408 * 4
    assert memory.total == fixed + max(memory.sampling, memory.update)


def test_where_lengths_are_known_only_whole_groups_that_fit_are_counted(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    overrides = {
        "micro_batch_tokens": 64,
        "max_completion_length": 16,
        "prompts_per_step": 2,
        "num_generations": 4,
    }
    config = RunConfig.build(overrides=overrides)
    # A group is 10 + 4 x 5 = 30 tokens; two of them fit into 64.
    memory = estimate.memory(config, facts, estimate.Lengths(10, 5.0))
    assert memory.activations == 60 * 4 * 3 * KEPT


def test_each_optimiser_keeps_what_it_keeps(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    kept = {
        name: estimate.memory(RunConfig.build(overrides={"optim": name}), facts).optimizer
        for name in ("adamw_torch_fused", "adafactor", "sgd")
    }
    sides = (8 + 8) + (8 + 4) + (8 + 4) + (8 + 8) + 3 * (8 + 16)
    assert kept == {"adamw_torch_fused": 2 * 408 * 4, "adafactor": (3 * sides + 50 + 8) * 4, "sgd": 0}


def test_a_packed_update_never_holds_more_than_a_block_of_logits(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    large = facts._replace(vocab=150_000)
    packed, padded = (
        estimate.memory(RunConfig.build(overrides={"packed_update": on, "micro_batch_tokens": 4096}), large)
        for on in (True, False)
    )
    longest = min(large.context, large.context + 256)
    assert packed.logits == 4 * 4 * 2**22
    assert padded.logits == 3 * 4 * max(4096, longest) * 150_000


def test_lora_needs_no_reference_and_trains_only_the_adapter(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    config = RunConfig.build(overrides={"use_peft": True, "lora_r": 2, "beta": 0.04})
    memory = estimate.memory(config, facts)
    adapter = 3 * 2 * ((8 + 8) + (8 + 4) + (8 + 4) + (8 + 8) + 3 * (8 + 16))
    assert (memory.reference, memory.gradients) == (0, adapter * 4)
    only_two = estimate.memory(config.changed(lora_target_modules="q_proj, v_proj"), facts)
    assert only_two.gradients == 3 * 2 * ((8 + 8) + (8 + 4)) * 4


def test_checkpointing_keeps_one_layer_and_the_borders_of_the_others(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    config = RunConfig.build(overrides={"gradient_checkpointing": True, "micro_batch_tokens": 256})
    assert estimate.memory(config, facts).activations == 256 * 4 * (KEPT + 8 * 3)


def test_bfloat16_halves_what_is_stored_per_weight(model: Path) -> None:
    facts = estimate.facts(str(model))
    assert facts is not None
    full, half = (
        estimate.memory(RunConfig.build(overrides={"dtype": dtype}), facts)
        for dtype in ("float32", "bfloat16")
    )
    assert (full.weights, full.kv_cache) == (2 * half.weights, 2 * half.kv_cache)


def test_the_default_run_is_estimated_at_the_time_that_was_measured() -> None:
    config = RunConfig.build("embedded")
    duration = estimate.duration(config, estimate.facts("embedded"))
    assert (
        duration is not None
        and duration.sampling == pytest.approx(25.8)
        and duration.update == pytest.approx(23.9)
    )
    twice = estimate.duration(config.changed(prompts_per_step=32), estimate.facts("embedded"))
    assert twice is not None and twice.sampling == pytest.approx(2 * duration.sampling)


def test_a_model_that_was_not_measured_has_no_estimated_time(model: Path) -> None:
    assert (
        estimate.duration(RunConfig.build(overrides={"model": str(model)}), estimate.facts(str(model)))
        is None
    )


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "just-a-word", "a/b/c"])
def test_a_missing_folder_is_named_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ModelError, match=r"no such folder.*Hugging Face id"):
        estimate.facts(name)


def test_a_hub_id_that_is_not_on_this_machine_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert estimate.facts("somebody/a-model-nobody-has") is None


def test_a_torn_weights_file_and_a_folder_without_config_are_named(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match=r"model\.safetensors is not a complete safetensors file"):
        estimate.facts(str(model))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        estimate.facts(str(tmp_path))


def test_estimating_needs_no_torch() -> None:
    code = "import sys, workbench.core.estimate as e; e.device(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
