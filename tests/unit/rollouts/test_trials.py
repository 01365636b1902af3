"""What a model can do is tried: its head, its decoding, its stop at the library's own settings."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    GenerationConfig,
)

from tests.tiny import NumberTokenizer, tiny_model, tiny_policy
from workbench.core.config import RunConfig
from workbench.core.errors import ModelError
from workbench.core.types import Prompt, Request, Sampling
from workbench.models import logprobs
from workbench.models.load import load_policy
from workbench.models.policy import Policy
from workbench.record.folder import RunFolder
from workbench.rollouts.registry import make_engine
from workbench.rollouts.transformers import TransformersEngine
from workbench.rollouts.trial import problem_of

IDS = {"vocab_size": 64, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FALCON_H1 = {
    **WIDE, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
    "mamba_d_state": 8, "mamba_n_groups": 1, "lm_head_multiplier": 0.25,
}  # fmt: skip
LLAMA = {**WIDE, "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128}


def policy_of(kind: str, **shape: Any) -> Policy:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**IDS, **shape}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3.0)
    config = RunConfig.build("trl-default", {"device": "cpu"})
    return load_policy(config, model=model, tokenizer=NumberTokenizer())


@pytest.mark.parametrize(
    ("kind", "shape", "plain"),
    [
        ("llama", LLAMA, True),
        ("gemma2", {**LLAMA, "head_dim": 8}, False),  # capped
        ("falcon_h1", FALCON_H1, False),  # multiplied
        ("granite", {**LLAMA, "logits_scaling": 8.0}, False),  # divided
        ("granite", {**LLAMA, "logits_scaling": 1.0}, True),
        ("cohere2", {**LLAMA, "logit_scale": 0.0625}, False),
    ],
)
def test_whether_logits_are_head_of_hidden_is_tried_and_not_known_by_name(
    kind: str, shape: dict[str, Any], plain: bool
) -> None:
    assert logprobs.has_plain_head(policy_of(kind, **shape).model) is plain


def test_a_head_that_reads_something_else_than_the_last_hidden_state_is_found() -> None:
    model = tiny_model()
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] / 2,))
    assert logprobs.has_plain_head(tiny_model())
    assert not logprobs.has_plain_head(model)


@pytest.mark.parametrize(
    ("kind", "shape", "engine"),
    [
        ("llama", LLAMA, "local"),
        ("falcon_h1", FALCON_H1, "transformers"),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "transformers"),
        ("opt", {**WIDE, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128}, None),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, "local"),
        ("falcon", WIDE, None),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}, None),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, "transformers"),
    ],
)
def test_sampler_and_trainer_are_within_a_ten_thousandth_nat_of_the_plain_forward_pass(
    kind: str, shape: dict[str, Any], engine: str | None, tmp_path: Any
) -> None:
    policy = policy_of(kind, **shape)
    made = make_engine(RunConfig(), policy, RunFolder(tmp_path))
    assert engine in (None, made.name)
    assert (made.name == "local") == (not [note for note in policy.notes if "through generate" in note])
    prompt = Prompt("", token_ids=(5, 9, 20, 33), id="p")
    [group] = made.generate([Request(prompt, tuple(range(6)))], Sampling(max_completion_length=12))
    batch = logprobs.Sequences([prompt.token_ids] * 6, [r.token_ids for r in group.rollouts])
    with torch.no_grad():
        trainer = logprobs.token_stats(policy.model, batch, Sampling(), policy.pad_id).logp_N.numpy()
        for r in group.rollouts:
            row = torch.tensor([[*prompt.token_ids, *r.token_ids.tolist()]])
            logp = policy.model(input_ids=row, use_cache=False).logits.log_softmax(-1)[0, 3:-1]
            plain = logp.gather(1, row[0, 4:, None])[:, 0].numpy()
            np.testing.assert_allclose(r.logprobs, plain, atol=1e-4)
            np.testing.assert_allclose(trainer[: r.length], plain, atol=1e-4)
            trainer = trainer[r.length :]


def test_a_model_that_reads_later_tokens_is_refused(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = BertLMHeadModel(
        BertConfig(**{**IDS, **WIDE, "intermediate_size": 64, "is_decoder": False})
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)
    policy = Policy(model, NumberTokenizer(), torch.device("cpu"), frozenset([1]), 0, 128)
    with pytest.raises(
        ModelError, match=r"bert\) cannot be .* nats from a plain forward pass.*another model"
    ):
        make_engine(RunConfig(), policy, RunFolder(tmp_path))


@pytest.mark.parametrize(
    "wish",
    [
        {"repetition_penalty": 2.0},
        {"suppress_tokens": list(range(20, 40))},
        {"min_new_tokens": 10},
        {"num_beams": 3},
        {"no_repeat_ngram_size": 1},
        {"temperature": 0.3, "do_sample": True, "top_k": 2},
        {"bad_words_ids": [[7], [8]]},
        {"max_time": 1e-9},
        {"forced_eos_token_id": 1},
        {"guidance_scale": 3.0},
    ],
    ids=lambda wish: next(iter(wish)),
)
def test_the_models_own_generation_config_does_not_shape_samples(wish: dict[str, Any]) -> None:
    policy = tiny_policy()
    request = [Request(Prompt("", token_ids=(5, 9, 20), id="p"), (1, 2, 3))]
    sampling = Sampling(max_completion_length=16)
    expected = TransformersEngine(policy).generate(request, sampling)[0].rollouts
    policy.model.generation_config = own = GenerationConfig(**wish, eos_token_id=[1, 2], pad_token_id=0)
    got = TransformersEngine(policy).generate(request, sampling)[0].rollouts
    assert [r.token_ids.tolist() for r in got] == [r.token_ids.tolist() for r in expected]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.logprobs, b.logprobs)
    assert policy.model.generation_config is own
    assert problem_of(TransformersEngine(policy), policy) == ""


def test_the_trial_says_what_the_library_raised() -> None:
    class Broken(TransformersEngine):
        def generate(self, *args: Any, **more: Any) -> Any:
            raise IndexError("too many indices\nsecond line")

    policy = tiny_policy()
    assert problem_of(Broken(policy), policy) == "a trial ended with IndexError: too many indices"


def test_trials_draw_no_random_numbers(tmp_path: Any) -> None:
    policy = tiny_policy()
    before = torch.get_rng_state()
    make_engine(RunConfig(), policy, RunFolder(tmp_path))
    assert torch.equal(before, torch.get_rng_state()) and not policy.notes
