"""A reference that follows the policy: mixed weights, full or through an adapter; the start stays what it was."""

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.tiny import NumberTokenizer, tiny_model
from workbench.core.config import RunConfig
from workbench.models.load import load_policy
from workbench.models.policy import Policy
from workbench.models.reference import sync_reference

IDS = torch.tensor([[5, 9, 13, 21]])


def trained(use_peft: bool) -> tuple[Policy, Any]:
    """A policy that has moved away from its base, and that base."""
    base = tiny_model()
    config = RunConfig.build(
        "trl-default", {"use_peft": use_peft, "sync_ref_model": True, "device": "cpu", "beta": 0.04}
    )
    policy = load_policy(config, model=copy.deepcopy(base), tokenizer=NumberTokenizer())
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy, base


def full_weights(policy: Policy) -> Any:
    """The policy as plain weights."""
    model = copy.deepcopy(policy.model)
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("use_peft", [False, True], ids=["full", "adapter"])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_the_reference_becomes_the_mixture_of_the_weights(alpha: float, use_peft: bool) -> None:
    policy, base = trained(use_peft)
    expected = copy.deepcopy(base)
    for moves in range(1, 3):
        sync_reference(policy, alpha)
        for target, ours in zip(expected.parameters(), full_weights(policy).parameters(), strict=True):
            target.data = alpha * ours + (1 - alpha) * target
        with policy.reference_model() as reference:
            torch.testing.assert_close(logits(reference), logits(expected), atol=1e-4, rtol=1e-4)
        if alpha == 1.0 and moves == 1:
            torch.testing.assert_close(logits(expected), logits(policy.model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("use_peft", [False, True], ids=["full", "adapter"])
def test_the_start_stays_where_it_was(use_peft: bool) -> None:
    policy, base = trained(use_peft)
    sync_reference(policy, 1.0)
    with policy.reference_model(initial=True) as initial:
        torch.testing.assert_close(logits(initial), logits(base), atol=1e-5, rtol=1e-4)  # float32 rounding
    assert (logits(policy.reference) - logits(base)).abs().max() > 0.01


def test_an_adapter_whose_reference_stays_keeps_no_copy() -> None:
    config = RunConfig.build("trl-default", {"use_peft": True, "device": "cpu", "beta": 0.04})
    policy = load_policy(config, model=tiny_model(), tokenizer=NumberTokenizer())
    assert policy.reference is None and policy.initial is None
