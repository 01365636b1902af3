"""What a saved model says of itself, where completions end, and which adapters are refused."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig

from tests.tiny import NumberTokenizer, tiny_model
from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.launch import model_files, preflight
from workbench.models import embedded
from workbench.models.load import context_length, load_policy, save_policy


def config(**changes: Any) -> RunConfig:
    return RunConfig.build("trl-default", {"device": "cpu", **changes})


def test_the_saved_model_stops_where_training_did(tmp_path: Path) -> None:
    model = tiny_model(eos_token_id=5)
    model.generation_config = GenerationConfig(eos_token_id=7)
    policy = load_policy(config(), model=model, tokenizer=NumberTokenizer())
    save_policy(policy, tmp_path)
    assert policy.eos_ids == {1, 5, 7}
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [1, 5, 7]


def test_an_adapter_folder_says_where_completions_end(tmp_path: Path) -> None:
    save_policy(load_policy(config(use_peft=True), model=tiny_model(), tokenizer=NumberTokenizer()), tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [1, 2]


@pytest.mark.parametrize(
    "own",
    [{"temperature": 0.3}, {"top_p": 0.5, "do_sample": False}, {"num_beams": 1, "early_stopping": True}],
)
def test_a_generation_config_that_contradicts_itself_does_not_stop_the_save(
    own: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny_model()
    model.generation_config = GenerationConfig(**own, eos_token_id=[1, 2])
    save_policy(load_policy(config(), model=model, tokenizer=NumberTokenizer()), tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert saved.eos_token_id == [1, 2]
    saved.validate(strict=True)


def test_a_turns_end_that_no_file_names_ends_completions_and_is_noted() -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded.folder())
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    other = next(i for i in tokenizer.added_tokens_decoder if i not in (end, tokenizer.pad_token_id))
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(other)
    size = len(tokenizer)
    for template, expected in (("chat", {other, end}), ("plain", {other})):
        model = tiny_model(vocab_size=size, eos_token_id=other)
        policy = load_policy(config(template=template), model=model, tokenizer=tokenizer)
        assert policy.eos_ids == expected
        assert bool([note for note in policy.notes if "ends a turn with" in note]) == (template == "chat")


@pytest.mark.parametrize(
    ("targets", "tied", "said"),
    [
        ("q_proj,lm_head", True, "names lm_head.*one matrix"),
        ("embed_tokens", True, "names embed_tokens.*one matrix"),
        ("c_attn,q_proj,proj", False, "names c_attn, proj, which.*down_proj, gate_proj.*q_proj"),
        ("input_layernorm", False, "not supported.*Linear layers of this model: down_proj"),
    ],
)
def test_adapters_that_cannot_be_are_refused_with_the_layers_there_are(
    targets: str, tied: bool, said: str
) -> None:
    settings = config(use_peft=True, lora_target_modules=targets)
    with pytest.raises(ModelError, match=said):
        load_policy(settings, model=tiny_model(tie_word_embeddings=tied), tokenizer=NumberTokenizer())


def test_an_untied_head_may_have_an_adapter() -> None:
    settings = config(use_peft=True, lora_target_modules="q_proj,lm_head")
    load_policy(settings, model=tiny_model(tie_word_embeddings=False), tokenizer=NumberTokenizer())


def test_modules_that_the_files_do_not_hold_are_found_before_the_start(tmp_path: Path) -> None:
    tiny_model(tie_word_embeddings=True).save_pretrained(tmp_path)
    unknown, known = model_files.unknown_modules(
        tmp_path, ["q_proj", "self_attn.v_proj", "qkv", "_proj", "lm_head"]
    )
    assert unknown == ["qkv", "_proj", "lm_head"]
    assert known == [
        "down_proj",
        "embed_tokens",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_an_adapters_folder_is_no_model_and_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    for also in ("", "config.json"):
        if also:
            (tmp_path / also).write_text("{}")
        with pytest.raises(ModelError, match=r"holds an adapter of 'some/base'.*Give its base.*export RUN"):
            estimate.facts(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"dtype": "bfloat16", "learning_rate": 1e-6}, True),
        ({"dtype": "bfloat16", "learning_rate": 9.9e-5}, True),
        ({"dtype": "bfloat16", "learning_rate": 1e-4}, False),
        ({"dtype": "bfloat16", "learning_rate": 1e-6, "use_peft": True}, False),
        ({"dtype": "float32", "learning_rate": 1e-6, "update_dtype": "bfloat16"}, False),
        ({"dtype": "auto", "learning_rate": 1e-6}, True),  # stored in two bytes here
    ],
)
def test_weights_that_would_not_move_are_refused_with_the_remedy(
    changes: dict[str, Any], refused: bool
) -> None:
    facts = estimate.facts("embedded")
    assert facts is not None
    problems: dict[str, str] = {}
    preflight.check_precision(config(**changes), facts._replace(bytes_per_weight=2), problems)
    assert bool(problems) == refused
    if refused:
        assert "round" in problems["dtype"] and "float32" in problems["dtype"]


def test_a_rotation_that_changes_with_the_longest_sequence_bounds_the_context() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 64}  # fmt: skip
    shape = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 256}
    assert context_length(LlamaConfig(**shape, rope_parameters=rope)) == 64
    assert (
        context_length(LlamaConfig(**shape, rope_parameters={"rope_type": "default", "rope_theta": 1e4}))
        == 256
    )
