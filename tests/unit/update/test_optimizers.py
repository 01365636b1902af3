"""Each optimiser by the numbers of one update, and put back exactly from what a checkpoint holds of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_policy
from tests.unit.update.test_update import advantages, config, sampled
from workbench.train.optimizers import optimizer
from workbench.train.update import Updater

NAMES = ("adamw_torch_fused", "adamw_torch", "adafactor", "sgd")


def settings(name: str, **changes: object):
    return config(optim=name, warmup_steps=0, learning_rate=0.01, max_grad_norm=1e9, **changes)


def one_update(
    name: str, **changes: object
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Weights before, gradients, weights after."""
    asked, policy = settings(name, **changes), tiny_policy()
    groups = sampled(policy, asked)
    weights = policy.trainable()
    before = [weight.detach().clone() for weight in weights]
    updater, gradients = Updater(policy, asked), []
    updater.optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(weight.grad.detach().clone() for weight in weights)
    )
    updater.step(groups, advantages(groups), asked, 0)
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    return before, gradients, weights


def test_sgd_moves_each_weight_by_the_rate_times_its_gradient():
    for before, gradient, after in zip(*one_update("sgd"), strict=True):
        assert torch.allclose(after, before - 0.01 * gradient, atol=1e-8)


def test_weight_decay_of_sgd_joins_the_gradient():
    for before, gradient, after in zip(*one_update("sgd", weight_decay=0.5), strict=True):
        assert torch.allclose(after, before - 0.01 * (gradient + 0.5 * before), atol=1e-7)


def test_the_first_adafactor_step_follows_its_formula():
    # Shazeer and Stern (2018) with relative steps: u = g / sqrt(row x column / mean row), clipped to a root mean square of 1, times
    # min(rate, 1 / sqrt(step)) x max(.001, root mean square of the weight). At step 1 the decay of the second moment is 0.
    checked = 0
    for before, gradient, after in zip(*one_update("adafactor"), strict=True):
        square = gradient.double().square()
        if gradient.dim() < 2 or float(square.mean(-1).min()) < 1e-12:
            continue  # a row without gradient is all epsilon
        row, column = square.mean(-1, keepdim=True), square.mean(-2, keepdim=True)
        step = gradient.double() / (row * column / row.mean()).sqrt()
        step /= max(1.0, float(step.square().mean().sqrt()))
        rate = 0.01 * max(1e-3, float(before.double().square().mean().sqrt()))
        assert torch.allclose(after.double(), before.double() - rate * step, atol=1e-6)
        checked += 1
    assert checked > 5


def test_fused_and_plain_adamw_make_the_same_update():
    fused, plain = one_update("adamw_torch_fused"), one_update("adamw_torch")
    for one, other, first in zip(fused[2], plain[2], fused[0], strict=True):
        assert torch.allclose(one, other, atol=1e-7) and not torch.equal(one, first)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimiser_read_back_from_safetensors_goes_on_bit_for_bit(name: str, tmp_path: Path):
    asked = settings(name)
    policy = tiny_policy()
    groups = sampled(policy, asked)
    updater = Updater(policy, asked)
    updater.step(groups, advantages(groups), asked, 0)
    save_file(updater.moments(), tmp_path / "moments.safetensors")
    twin = tiny_policy()
    twin.model.load_state_dict(policy.model.state_dict())
    resumed = Updater(twin, asked)
    resumed.set_moments(load_file(tmp_path / "moments.safetensors"))
    for one in (updater, resumed):
        one.step(groups, advantages(groups), asked, 1)
    for ours, theirs in zip(policy.trainable(), twin.trainable(), strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = updater.moments(), resumed.moments()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert bool(ours) == (name != "sgd")


@pytest.mark.parametrize(
    ("name", "numbers"), [("adamw_torch", 2 * 60 + 1), ("adafactor", 6 + 10 + 1), ("sgd", 0)]
)
def test_an_optimiser_keeps_as_many_numbers_as_its_setting_says(name: str, numbers: int):
    weight = torch.nn.Parameter(torch.ones(6, 10))
    kept = optimizer([weight], settings(name), torch.device("cpu"))
    weight.grad = torch.ones_like(weight)
    kept.step()
    assert sum(value.numel() for value in kept.state[weight].values()) == numbers
