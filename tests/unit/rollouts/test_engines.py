"""The local engine against the library's `generate` and a plain forward pass."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.tiny import tiny_policy
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.core.types import Group, Prompt, Request, Sampling
from workbench.models import logprobs
from workbench.models.fast import cpu_decoder
from workbench.record.folder import RunFolder
from workbench.rollouts.engine import Capabilities, draw, uniforms
from workbench.rollouts.local import LocalEngine
from workbench.rollouts.registry import ENGINES, make_engine
from workbench.rollouts.transformers import TransformersEngine
from workbench.train.oom import OomRetryEngine

SAMPLINGS = {
    "greedy": Sampling(temperature=0, max_completion_length=40),
    "plain": Sampling(temperature=1, max_completion_length=40),
    "filtered": Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.02, max_completion_length=40),
}


def requests(samples: int = 5, lengths: tuple[int, ...] = (3, 9, 5, 7)) -> list[Request]:
    random = np.random.default_rng(0)
    return [
        Request(
            Prompt("q", token_ids=tuple(int(i) for i in random.integers(3, 64, n)), id=str(n)),
            tuple(range(n * 10, n * 10 + samples)),
        )
        for n in lengths
    ]


def tokens(groups: list[Group]) -> list[list[int]]:
    return [rollout.token_ids.tolist() for group in groups for rollout in group.rollouts]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma", "mistral-sliding", "qwen3-moe"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_local_engine_draws_the_tokens_of_generate_with_equal_log_probabilities(architecture, sampling):
    policy = tiny_policy(architecture)
    local = LocalEngine(policy).generate(requests(), sampling)
    plain = TransformersEngine(policy).generate(requests(), sampling)
    assert tokens(local) == tokens(plain)
    for ours, theirs in zip(local, plain, strict=True):
        for a, b in zip(ours.rollouts, theirs.rollouts, strict=True):
            assert a.finish_reason == b.finish_reason and a.text == b.text
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


@pytest.mark.parametrize("sampling", [SAMPLINGS["plain"], SAMPLINGS["filtered"]], ids=["plain", "filtered"])
def test_sampled_log_probabilities_equal_a_plain_forward_pass(sampling):
    policy = tiny_policy("qwen3")
    groups = LocalEngine(policy).generate(requests(), sampling)
    rollouts = [r for g in groups for r in g.rollouts]
    batch = logprobs.Sequences(
        [g.prompt.token_ids for g in groups for _ in g.rollouts], [r.token_ids for r in rollouts]
    )
    with torch.no_grad():
        stats = logprobs.token_stats(policy.model, batch, sampling, policy.pad_id)
    np.testing.assert_allclose(
        stats.logp_N.numpy(), np.concatenate([r.logprobs for r in rollouts]), atol=1e-4
    )


def test_a_longer_group_or_other_neighbours_leave_earlier_samples_as_they_were():
    engine = LocalEngine(tiny_policy())
    few = engine.generate(requests(3), SAMPLINGS["plain"])
    many = engine.generate(requests(6), SAMPLINGS["plain"])
    alone = engine.generate(requests(3)[1:2], SAMPLINGS["plain"])
    assert [tokens([g])[:3] for g in many] == [tokens([g]) for g in few]
    assert tokens(alone) == tokens(few[1:2])


def test_rounds_of_few_rows_draw_the_same_completions():
    policy = tiny_policy()
    together = LocalEngine(policy).generate(requests(), SAMPLINGS["plain"])
    assert tokens(LocalEngine(policy, max_rows=5).generate(requests(), SAMPLINGS["plain"])) == tokens(
        together
    )


def test_completions_end_with_an_end_token_or_at_the_limit():
    groups = LocalEngine(tiny_policy()).generate(requests(20), SAMPLINGS["plain"])
    reasons = Counter(r.finish_reason for g in groups for r in g.rollouts)
    assert reasons["stop"] > 0 and reasons["length"] > 0
    for group in groups:
        for r in group.rollouts:
            assert (r.token_ids[-1] in (1, 2)) == (r.finish_reason == "stop")
            assert not np.isin(r.token_ids[:-1], (1, 2)).any()
            assert r.finish_reason == "stop" or r.length == 40


def test_a_completion_never_runs_past_the_context():
    policy = tiny_policy(max_position_embeddings=16)
    groups = LocalEngine(policy).generate(requests(), SAMPLINGS["plain"])
    assert max(len(g.prompt.token_ids) + r.length for g in groups for r in g.rollouts) == 16


def test_draws_follow_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    expected = torch.softmax(logits[0], 0).numpy()
    count = 20_000
    uniform = torch.from_numpy(uniforms(7, count))
    token, logp = draw(logits.expand(count, -1), uniform, Sampling())
    observed = np.bincount(token.numpy(), minlength=4)
    chi_square = ((observed - count * expected) ** 2 / (count * expected)).sum()
    assert chi_square < 16.3  # 99.9 % of chi-square with 3 degrees of freedom
    np.testing.assert_allclose(logp.numpy(), np.log(expected)[token.numpy()], atol=1e-6)


def test_draws_never_pick_a_token_without_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    token, logp = draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64), Sampling())
    assert token.tolist() == [1, 3, 3]
    np.testing.assert_allclose(logp.numpy(), np.log([0.5] * 3), atol=1e-6)


def test_filters_keep_what_they_promise():
    scaled = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    assert logprobs.sampling_mask(scaled, Sampling()) is None
    assert logprobs.sampling_mask(scaled, Sampling(top_k=2)).tolist() == [[True, True, False, False]]
    assert logprobs.sampling_mask(scaled, Sampling(top_p=0.75)).tolist() == [[True, True, False, False]]
    assert logprobs.sampling_mask(scaled, Sampling(top_p=0.85)).tolist() == [[True, True, True, False]]
    assert logprobs.sampling_mask(scaled, Sampling(min_p=0.25)).tolist() == [[True, True, True, False]]


def test_a_model_the_local_engine_cannot_decode_goes_through_generate_and_is_noted(tmp_path):
    policy = tiny_policy()
    policy.model.lm_head.register_forward_hook(lambda module, args, output: output / 2)
    engine = make_engine(RunConfig(), policy, RunFolder(tmp_path))
    assert engine.name == "transformers"
    assert "the local engine cannot decode with this model, because" in policy.notes[0]
    assert make_engine(RunConfig(), tiny_policy(), RunFolder(tmp_path)).name == "local"


def test_every_engine_of_the_setting_is_in_the_table_and_keeps_the_protocol(tmp_path):
    assert set(ENGINES) == set(get_args(RunConfig.model_fields["engine"].annotation))
    for name in ENGINES:
        engine = make_engine(RunConfig(engine=name), tiny_policy(), RunFolder(tmp_path))
        assert engine.name == name and engine.notices() == []
        assert engine.capabilities.shares_weights and engine.capabilities.independent_samples


def test_completions_carry_the_version_of_the_weights_that_drew_them():
    policy = tiny_policy()
    policy.version = 3
    for engine in (LocalEngine(policy), TransformersEngine(policy)):
        before = engine.generate(requests(1), SAMPLINGS["plain"])
        engine.sync(5)
        after = engine.generate(requests(1), SAMPLINGS["plain"])
        assert {r.weights_version for g in before for r in g.rollouts} == {3}
        assert {r.weights_version for g in after for r in g.rollouts} == {5}


def test_the_cpu_decoder_and_the_library_draw_the_same_with_and_without_an_adapter(monkeypatch):
    for architecture in ("llama", "qwen3"):
        policy = tiny_policy(architecture)
        policy.model = get_peft_model(policy.model, LoraConfig(r=4, target_modules="all-linear"))
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.3)
        assert cpu_decoder.can_run(policy.model)
        few = LocalEngine(policy).generate(requests(), SAMPLINGS["plain"])
        with policy.model.disable_adapter():
            base = LocalEngine(policy).generate(requests(), SAMPLINGS["plain"])
        with monkeypatch.context() as patch:
            patch.setattr(cpu_decoder, "can_run", lambda model: False)
            library = LocalEngine(policy).generate(requests(), SAMPLINGS["plain"])
        assert tokens(few) == tokens(library) != tokens(base)
        for ours, theirs in zip(few, library, strict=True):
            for a, b in zip(ours.rollouts, theirs.rollouts, strict=True):
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def test_progress_counts_up_to_every_completion():
    seen: list[tuple[int, int]] = []
    LocalEngine(tiny_policy(), max_rows=10).generate(
        requests(), SAMPLINGS["plain"], lambda *done: seen.append(done)
    )
    assert seen[-1] == (20, 20) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_without_memory_only_independent_samples_are_drawn_apart():
    class Dependent(LocalEngine):
        capabilities = Capabilities(shares_weights=True, independent_samples=False)

        def generate(self, requests, sampling, progress=None, on_group_done=None):
            raise torch.OutOfMemoryError("no more")

    with pytest.raises(RunError, match="Out of memory in sampling"):
        engine = OomRetryEngine(Dependent(tiny_policy()))
        engine.generate(requests(), SAMPLINGS["plain"])
    assert engine.retry.chunks == 1 and engine.notices() == []
