"""bfloat16 where it is asked for, and only there: in the layers that the update computes, or in the weights of the reference."""

import numpy as np
import torch

from tests.tiny import NumberTokenizer, tiny_model
from tests.unit.update.test_update import advantages, config, sampled
from workbench.models.load import load_policy
from workbench.train.update import Updater

ROUNDING = 2.0**-8
"""Of one number in bfloat16, relative to its size."""
BOUND = 0.25
"""Nats a token. Logits of this model reach +-20; two layers of sums over 32 to 64 products round a few times ROUNDING x 20 = .08."""


def loaded(**changes: object):
    asked = config(beta=0.1, max_grad_norm=1e9, **changes)
    return load_policy(asked, model=tiny_model(), tokenizer=NumberTokenizer()), asked


def logp(policy, asked, groups, read) -> np.ndarray:
    scored = read(Updater(policy, asked), groups, asked)
    return np.asarray(scored[0] if isinstance(scored, tuple) else scored)


def test_an_update_in_bfloat16_reads_nearly_the_same_and_keeps_float32_weights():
    (full, plain), (half, lower) = loaded(), loaded(update_dtype="bfloat16")
    groups = sampled(full, plain)
    apart = np.abs(logp(full, plain, groups, Updater.score) - logp(half, lower, groups, Updater.score))
    assert 1e-4 < apart.max() < BOUND and apart.mean() < BOUND / 4
    Updater(half, lower).step(
        groups, advantages(groups), lower, 0, reference_B_T=Updater(half, lower).reference(groups, lower)
    )
    assert {weight.dtype for weight in half.trainable()} == {torch.float32}


def gradient(policy, asked, groups) -> torch.Tensor:
    """All gradients of one update as one vector, as the optimiser sees them."""
    updater, seen = Updater(policy, asked), []
    updater.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(weight.grad.detach().flatten().clone() for weight in policy.trainable())
    )
    updater.step(groups, advantages(groups), asked, 0, reference_B_T=updater.reference(groups, asked))
    assert {part.dtype for part in seen} == {torch.float32}
    return torch.cat(seen)


def test_a_gradient_computed_in_bfloat16_points_where_the_full_one_does():
    (full, plain), (half, lower) = loaded(), loaded(update_dtype="bfloat16")
    groups = sampled(full, plain)
    one, other = gradient(full, plain, groups), gradient(half, lower, groups)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
    assert not torch.allclose(one, other, rtol=1e-4)


def test_a_reference_in_bfloat16_takes_half_the_memory_and_leaves_the_policy_alone():
    (full, plain), (half, lower) = loaded(), loaded(reference_dtype="bfloat16")
    size = [sum(w.numel() * w.element_size() for w in p.reference.parameters()) for p in (full, half)]
    assert size[0] == 2 * size[1]
    assert {weight.dtype for weight in half.model.parameters()} == {torch.float32}
    groups = sampled(full, plain)
    apart = np.abs(
        logp(full, plain, groups, Updater.reference) - logp(half, lower, groups, Updater.reference)
    )
    assert 1e-4 < apart.max() < BOUND and apart.mean() < BOUND / 4
    # The policy itself reads as before.
    assert np.array_equal(logp(full, plain, groups, Updater.score), logp(half, lower, groups, Updater.score))


def test_groups_without_signal_are_read_in_bfloat16_too():
    (full, plain), (half, lower) = loaded(), loaded(update_dtype="bfloat16")
    groups = sampled(full, plain)
    nothing = np.zeros(sum(map(len, groups)))
    seen = [
        Updater(policy, asked).step(groups, nothing, asked.changed(beta=0.0), 0).tokens.entropy
        for policy, asked in ((full, plain), (half, lower))
    ]
    for one, other in zip(*seen, strict=True):
        assert other.dtype == np.float32 and np.allclose(one, other, atol=BOUND)
