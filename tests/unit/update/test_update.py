"""The update against plain autograd on one padded batch, and its promises about micro-batches, old log-probabilities and guards."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch

from tests.tiny import tiny_policy
from workbench.algorithm import losses
from workbench.algorithm import token_grads as algorithm
from workbench.core.config import RunConfig
from workbench.core.types import Group, Prompt, Request
from workbench.models import logprobs
from workbench.models.fast import fused_head, packing
from workbench.models.policy import Policy
from workbench.rollouts.local import LocalEngine
from workbench.train import update
from workbench.train.optimizers import scheduled
from workbench.train.update import Updater, sampling_of


def config(**changes: object) -> RunConfig:
    values = {
        "prompts_per_step": 4,
        "num_generations": 5,
        "max_completion_length": 24,
        "learning_rate": 1e-3,
        "max_grad_norm": 1e9,
        "micro_batch_tokens": 4096,
        "lr_scheduler_type": "constant",
        "probe_every": 1,
        "rewards": "correct=1",
    }
    return RunConfig.parse({**values, **changes})


@cache
def sampled_once(temperature: float) -> list[Group]:
    return sampled(tiny_policy(), config(temperature=temperature))


def sampled(policy: Policy, settings: RunConfig) -> list[Group]:
    random = np.random.default_rng(3)
    requests = [
        Request(
            Prompt("q", token_ids=tuple(int(i) for i in random.integers(3, 64, n)), id=str(n)),
            tuple(range(100 * n, 100 * n + count)),
        )
        for n, count in ((3, 5), (9, 2), (5, 7), (7, 5))
    ]
    return LocalEngine(policy).generate(requests, sampling_of(settings))


def advantages(groups: list[Group]) -> np.ndarray:
    return np.random.default_rng(5).normal(size=sum(map(len, groups)))


def with_reference(policy: Policy) -> Policy:
    policy.reference = tiny_policy(seed=9).model
    return policy


def read_packed(policy: Policy) -> Policy:
    for model in filter(None, (policy.model, policy.reference)):
        assert packing.enable(model) is None
    return policy


def autograd(
    policy: Policy,
    groups: list[Group],
    advantages_B: np.ndarray,
    settings: RunConfig,
    micro_ids_B: np.ndarray | None = None,
) -> tuple[float, list[torch.Tensor]]:
    """Loss and parameter gradients by plain torch: one padded batch, full logits, no weights.py, no micro-batches."""
    rollouts = [r for g in groups for r in g.rollouts]
    prompts = [g.prompt.token_ids for g in groups for _ in g.rollouts]
    width = max(len(p) + r.length for p, r in zip(prompts, rollouts, strict=True))
    longest = max(r.length for r in rollouts)
    logp_B_T = torch.zeros(len(rollouts), longest)
    entropy_B_T, reference_B_T, mask_B_T = (torch.zeros_like(logp_B_T) for _ in range(3))
    for b, (prompt, rollout) in enumerate(zip(prompts, rollouts, strict=True)):
        ids = torch.zeros(1, width, dtype=torch.long)
        ids[0, : len(prompt) + rollout.length] = torch.tensor([*prompt, *rollout.token_ids.tolist()])
        at = torch.arange(len(prompt) - 1, len(prompt) + rollout.length - 1)
        target = ids[0, at + 1]
        for model, table in ((policy.model, logp_B_T), (policy.reference, reference_B_T)):
            if model is not None:
                log_softmax = torch.log_softmax(model(ids).logits[0, at] / settings.temperature, -1)
                table[b, : rollout.length] = log_softmax.gather(1, target[:, None])[:, 0]
                if model is policy.model:
                    entropy_B_T[b, : rollout.length] = -(log_softmax.exp() * log_softmax).sum(-1)
        mask_B_T[b, : rollout.length] = 1
    ids_B = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(g) for g in groups]))
    normalizer = algorithm.normalizer(
        mask_B_T.sum(1),
        ids_B,
        micro_batch_ids_B=None if micro_ids_B is None else torch.from_numpy(micro_ids_B),
    )
    sampler_B_T = torch.zeros_like(logp_B_T)
    for b, rollout in enumerate(rollouts):
        sampler_B_T[b, : rollout.length] = torch.from_numpy(rollout.logprobs)
    loss = losses.loss(
        logp_B_T,
        None,
        reference_B_T.detach() if policy.reference is not None else None,
        sampler_B_T,
        torch.from_numpy(advantages_B).float(),
        mask_B_T,
        algorithm.Objective.of(settings),
        normalizer,
        entropy_B_T=entropy_B_T,
    )
    gradients = torch.autograd.grad(loss.total, policy.trainable())
    return float(loss.total.detach()), list(gradients)


class Captured(Exception):
    """Raised in place of the optimiser's step, with the gradients still there."""


def gradients_of_update(
    policy: Policy, groups: list[Group], advantages_B: np.ndarray, settings: RunConfig
) -> list[torch.Tensor]:
    updater = Updater(policy, settings)

    def capture() -> None:
        raise Captured

    updater.optimizer.step = capture  # type: ignore[method-assign]
    reference = updater.reference(groups, settings) if policy.reference is not None else None
    with pytest.raises(Captured):
        updater.step(groups, advantages_B, settings, 0, reference_B_T=reference)
    return [p.grad.clone() for p in policy.trainable()]


OBJECTIVES = {
    "dapo": {},
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo_group": {"loss_type": "dapo_group"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "sapo": {"loss_type": "sapo"},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "gspo": {
        "loss_type": "grpo",
        "importance_sampling_level": "sequence",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
    },
    "k3": {"beta": 0.04},
    "k2": {"beta": 0.5, "kl_estimator": "k2"},
    "k3_ratio": {"beta": 0.3, "kl_estimator": "k3_ratio"},
    "entropy": {"entropy_coef": 0.1},
    "warm": {"temperature": 0.7},
    "tis": {"importance_sampling_correction": "token_truncate"},
}


PATHS = {
    "padded": lambda policy, patch: policy,
    "packed": lambda policy, patch: read_packed(policy),
    # a few tokens at a time through the head: weights that need whole answers then take two passes
    "packed in blocks": lambda policy, patch: (
        patch.setattr(fused_head, "CHUNK_LOGITS", 640) or read_packed(policy)
    ),
}


@pytest.mark.parametrize(
    ("path", "micro_batch_tokens"), [("padded", 64), ("packed", 4096), ("packed in blocks", 64)]
)
@pytest.mark.parametrize("changes", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_gradient_of_an_update_equals_autograd_on_one_padded_batch(
    changes, path, micro_batch_tokens, monkeypatch
):
    settings = config(micro_batch_tokens=micro_batch_tokens, **changes)
    policy = with_reference(tiny_policy())
    groups = sampled_once(settings.temperature)
    advantages_B = advantages(groups)
    _, expected = autograd(policy, groups, advantages_B, settings)
    ours = gradients_of_update(PATHS[path](policy, monkeypatch), groups, advantages_B, settings)
    scale = max(float(theirs.abs().max()) for theirs in expected)
    for our, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(our.numpy(), theirs.numpy(), atol=1e-5 * scale, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["qwen3", "gemma", "mistral-sliding", "qwen3-moe"])
def test_packed_gradients_and_log_probabilities_are_those_of_plain_autograd(architecture, monkeypatch):
    settings = config(beta=0.04)
    policy = tiny_policy(architecture)
    policy.reference = tiny_policy(architecture, seed=9).model
    groups = sampled(policy, settings)
    advantages_B = advantages(groups)
    _, expected = autograd(policy, groups, advantages_B, settings)
    plain = Updater(policy, settings).score(groups, settings)
    ours = gradients_of_update(PATHS["packed in blocks"](policy, monkeypatch), groups, advantages_B, settings)
    scale = max(float(theirs.abs().max()) for theirs in expected)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, expected, strict=True)) < 1e-5 * scale
    for packed, padded in zip(Updater(policy, settings).score(groups, settings), plain, strict=True):
        np.testing.assert_allclose(packed.numpy(), padded.numpy(), atol=2e-5)


def test_a_truncated_distribution_is_scored_over_the_tokens_it_kept(monkeypatch):
    settings = config(top_k=9, temperature=0.8, entropy_coef=0.05)
    policy = tiny_policy()
    groups = sampled(policy, settings)
    advantages_B = advantages(groups)
    plain = gradients_of_update(policy, groups, advantages_B, settings)
    packed = gradients_of_update(
        PATHS["packed in blocks"](policy, monkeypatch), groups, advantages_B, settings
    )
    scale = max(float(a.abs().max()) for a in plain)
    assert max(float((a - b).abs().max()) for a, b in zip(packed, plain, strict=True)) < 1e-5 * scale


def test_bnpo_averages_over_micro_batches_by_definition():
    settings = config(loss_type="bnpo", micro_batch_tokens=64)
    policy = tiny_policy()
    groups = sampled(policy, settings)
    advantages_B = advantages(groups)
    lengths = np.array([len(g.prompt.token_ids) + r.length for g in groups for r in g.rollouts])
    micro_B = np.zeros(len(lengths), dtype=np.int64)
    for number, index in enumerate(logprobs.microbatches_by_length(lengths, 64)):
        micro_B[index] = number
    _, expected = autograd(policy, groups, advantages_B, settings, micro_B)
    _, one_batch = autograd(policy, groups, advantages_B, settings)
    ours = gradients_of_update(policy, groups, advantages_B, settings)
    worst = max(float((a - b).abs().max()) for a, b in zip(ours, expected, strict=True))
    apart = max(float((a - b).abs().max()) for a, b in zip(one_batch, expected, strict=True))
    assert worst < 1e-4 < apart


def test_loss_and_metrics_are_those_of_the_objective():
    settings = config(beta=0.04)
    policy = with_reference(tiny_policy())
    groups = sampled(policy, settings)
    advantages_B = advantages(groups)
    value, gradients = autograd(policy, groups, advantages_B, settings)
    updater = Updater(policy, settings)
    metrics = updater.step(
        groups, advantages_B, settings, 0, reference_B_T=updater.reference(groups, settings)
    ).metrics
    assert metrics["loss"] == pytest.approx(value, abs=1e-5)
    assert metrics["grad_norm"] == pytest.approx(
        math.sqrt(sum(float((g**2).sum()) for g in gradients)), rel=1e-4
    )
    assert metrics["ratio/min"] == metrics["ratio/max"] == 1.0  # on policy, exactly


def test_samples_without_signal_add_nothing_but_are_seen():
    settings = config()
    policy = tiny_policy()
    groups = sampled(policy, settings)
    advantages_B = advantages(groups)
    advantages_B[:5] = 0.0
    result = Updater(copy.deepcopy(policy), settings).step(groups, advantages_B, settings, 0)
    assert result.gradient_share_B[:5].sum() == 0 and result.gradient_share_B.sum() == pytest.approx(1)
    assert all((entropy > 0).any() for entropy in result.tokens.entropy)
    _, expected = autograd(policy, groups, advantages_B, settings)
    ours = gradients_of_update(policy, groups, advantages_B, settings)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, expected, strict=True)) < 1e-5


def test_later_updates_of_a_generation_keep_the_old_log_probabilities():
    settings = config(num_iterations=3, steps_per_generation=2, learning_rate=3e-3)
    policy = tiny_policy()
    groups = sampled(policy, settings)
    before = Updater(policy, settings).score(groups, settings).logp_B_T
    result = Updater(policy, settings).step(groups, advantages(groups), settings, 0)
    assert policy.version == 6
    for recorded, row in zip(result.tokens.policy_logp, before, strict=True):
        np.testing.assert_allclose(recorded, row[: len(recorded)].numpy(), atol=1e-6)
    assert result.metrics["ratio/max"] > 1.01  # the policy has moved away from them


@pytest.mark.parametrize(("mini_batches", "passes"), [(1, 0), (2, 1)])
def test_iterations_over_a_whole_generation_need_no_pass_for_the_old_log_probabilities(
    mini_batches, passes, monkeypatch
):
    settings = config(num_iterations=2, steps_per_generation=mini_batches, learning_rate=3e-3)
    policy = tiny_policy()
    groups = sampled(policy, settings)
    before = Updater(policy, settings).score(groups, settings).logp_B_T
    calls = []
    real = update.per_token_logps.completion_stats
    monkeypatch.setattr(
        update.per_token_logps, "completion_stats", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    result = Updater(policy, settings).step(groups, advantages(groups), settings, 0)
    assert len(calls) == passes
    assert (
        result.metrics["ratio/max"] > 1.01
    )  # the second iteration is measured against the first, not against itself
    for recorded, row in zip(result.tokens.policy_logp, before, strict=True):
        np.testing.assert_allclose(recorded, row[: len(recorded)].numpy(), atol=1e-6)


def test_after_the_update_the_same_tokens_are_read_again():
    settings = config(learning_rate=1e-4, record_kl=False)
    policy = tiny_policy()
    groups = sampled(policy, settings)
    advantages_B = np.zeros(sum(map(len, groups)))
    advantages_B[0], advantages_B[6] = 1.0, -1.0
    updater = Updater(policy, settings)
    tokens = updater.step(groups, advantages_B, settings, 0).tokens
    updater.post_update_pass(tokens, groups, settings, 0)
    moved = [
        float((after - seen).sum()) for after, seen in zip(tokens.after_logp, tokens.policy_logp, strict=True)
    ]
    assert moved[0] > 0 > moved[6]


def test_a_sample_left_out_of_the_loss_gets_no_weight():
    settings = config(beta=0.1)
    policy = with_reference(tiny_policy())
    groups = sampled(policy, settings)
    excluded = np.zeros(sum(map(len, groups)), bool)
    excluded[2] = True
    updater = Updater(policy, settings)
    result = updater.step(
        groups,
        advantages(groups),
        settings,
        0,
        reference_B_T=updater.reference(groups, settings),
        excluded_B=excluded,
    )
    assert not result.tokens.weight[2].any() and result.tokens.weight[1].any()
    assert result.gradient_share_B[2] == 0


def test_a_gradient_that_is_not_finite_is_skipped_and_after_three_in_a_row_nothing_more_is_tried():
    settings = config()
    policy = tiny_policy()
    groups = sampled(policy, settings)
    updater = Updater(policy, settings)
    before = [p.detach().clone() for p in policy.trainable()]
    policy.trainable()[0].register_hook(lambda gradient: gradient * float("nan"))
    for step in range(3):
        assert not updater.broken
        result = updater.step(groups, advantages(groups), settings, step)
        assert "grad_norm is nan" in result.skipped[0]
    assert updater.broken and policy.version == 0
    four = settings.changed(num_iterations=2, steps_per_generation=2)
    updater = Updater(policy, four)
    assert len(updater.step(groups, advantages(groups), four, 0).skipped) == 3  # of 4
    assert all(torch.equal(a, b) for a, b in zip(before, policy.trainable(), strict=True))


def test_learning_rate_warms_up_and_follows_its_schedule():
    linear = config(steps=10, warmup_steps=2, lr_scheduler_type="linear", learning_rate=1.0)
    assert [scheduled(linear, step) for step in (0, 1, 2, 6, 9)] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.125])
    cosine = config(steps=11, warmup_steps=1, lr_scheduler_type="cosine", learning_rate=1.0)
    assert scheduled(cosine, 6) == pytest.approx(0.5) and scheduled(cosine, 1) == 1.0
    assert scheduled(config(warmup_steps=4), 0) == pytest.approx(2.5e-4)


def test_the_first_adam_step_is_the_rate_times_the_gradient_over_its_size_plus_epsilon():
    settings = config(adam_epsilon=0.01, warmup_steps=0, learning_rate=0.1, max_grad_norm=1e9)
    policy = tiny_policy()
    groups = sampled(policy, settings)
    weight = policy.trainable()[0]
    before, gradient = weight.detach().clone(), torch.zeros_like(weight)

    def keep(one: torch.Tensor) -> None:
        gradient.copy_(one.grad)  # the last of the micro-batches sees the sum

    weight.register_post_accumulate_grad_hook(keep)
    Updater(policy, settings).step(groups, advantages(groups), settings, 0)
    assert gradient.abs().max() > 0
    assert torch.allclose(weight, before - 0.1 * gradient / (gradient.abs() + 0.01), atol=1e-6)
