"""weights.py is the derivative of losses.py: by log-probabilities for every pair of settings, and by the
parameters of a real model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model
from tests.unit.algorithm.batches import (
    CLIPS,
    CORRECTIONS,
    LEVELS,
    LOSSES,
    PENALTIES,
    objectives,
    paired_objectives,
    random_batch,
)
from workbench.algorithm import losses, token_grads
from workbench.algorithm.token_grads import Objective
from workbench.core.types import Sampling
from workbench.models.logprobs import Sequences, token_stats, unflatten


def gradient_by_logp(batch, objective: Objective) -> torch.Tensor:
    logp = batch.logp.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        losses.loss(logp, *batch.terms(objective)[1:]).total, logp, allow_unused=True
    )
    return torch.zeros_like(logp) if gradient is None else gradient


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSSES)
def test_weights_are_the_derivative_of_the_loss_in_every_pair_of_settings(loss_type: str, level: str) -> None:
    batch = random_batch(1)
    tensors = batch.torch()
    for objective in paired_objectives(loss_type, level):
        found = token_grads.loss_grads(*batch.terms(objective))
        np.testing.assert_allclose(
            found.grad_B_T, gradient_by_logp(tensors, objective).numpy(), atol=1e-12, err_msg=str(objective)
        )


@pytest.mark.parametrize("loss_type", LOSSES)
def test_loss_values_have_these_derivatives_by_central_differences(loss_type: str) -> None:
    batch, step = random_batch(2), 1e-6
    for objective in objectives(loss_type, "token"):
        if loss_type == "cispo" or "_ratio" in objective.kl_estimator:
            continue  # a stopped gradient is not the derivative of the value; autograd above covers these
        found = token_grads.loss_grads(*batch.terms(objective)).grad_B_T
        direction = np.random.default_rng(3).normal(size=batch.logp.shape)
        values = [
            float(
                losses.loss(
                    *batch._replace(logp=batch.logp + sign * step * direction).torch().terms(objective)
                ).total
            )
            for sign in (1, -1)
        ]
        # The off-policy mask and the correction are constants of the derivative but move with logp only at
        # their thresholds.
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(
            float((found * direction).sum()), abs=1e-7
        ), objective


def test_on_policy_is_what_equal_old_log_probabilities_give() -> None:
    batch = random_batch(4)
    for loss_type in LOSSES:
        objective = Objective(loss_type=loss_type, beta=0.1, kl_estimator="k3_ratio", epsilon_high=2.0)
        absent = token_grads.loss_grads(*batch._replace(old=None).terms(objective))
        equal = token_grads.loss_grads(*batch._replace(old=batch.logp).terms(objective))
        np.testing.assert_array_equal(absent.grad_B_T, equal.grad_B_T)
        tensors = batch.torch()
        np.testing.assert_allclose(
            absent.grad_B_T, gradient_by_logp(tensors._replace(old=None), objective), atol=1e-13
        )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("level", LEVELS)
def test_weights_give_the_parameter_gradients_of_the_loss_through_a_model(
    level: str, dtype: torch.dtype, tolerance: float
) -> None:
    model = tiny_model("llama").to(dtype)
    batch = random_batch(5, samples=6, tokens=6).torch(dtype)
    rng = np.random.default_rng(6)
    lengths = batch.mask.sum(1).int().tolist()
    sequences = Sequences(
        [tuple(rng.integers(3, 60, 4).tolist()) for _ in lengths],
        [rng.integers(3, 60, max(length, 1)).astype(np.int32) for length in lengths],
    )
    valid = sequences.valid(torch.device("cpu"))
    width = valid.shape[1]
    batch = batch._replace(
        mask=batch.mask[:, :width],
        **{
            name: getattr(batch, name)[:, :width] - batch.logp[:, :width]
            for name in ("old", "ref", "sampler")
        },
    )
    parameters = [p for p in model.parameters() if p.requires_grad]
    logp = unflatten(token_stats(model, sequences, Sampling(temperature=1.3), 0).logp_N, valid)
    seen = logp.detach()
    batch = batch._replace(
        logp=seen, old=seen + batch.old, ref=seen + batch.ref, sampler=seen + batch.sampler
    )

    def gradient(scalar: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(scalar, parameters, retain_graph=True)])

    for loss_type in LOSSES:
        for objective in objectives(loss_type, level):
            terms = batch.terms(objective)
            analytic = gradient((token_grads.loss_grads(*terms).grad_B_T.detach() * logp).sum())
            automatic = gradient(losses.loss(logp, *terms[1:]).total)
            worst = float((analytic - automatic).abs().max()) / max(1.0, float(automatic.abs().max()))
            assert worst < tolerance, (objective, worst)


def test_the_settings_walked_through_the_model_cover_every_clip_penalty_and_correction() -> None:
    seen = list(objectives("grpo", "token"))

    def among(setting: dict[str, object]) -> bool:
        wanted = Objective(loss_type="grpo", max_completion_length=9, **setting)
        return any(all(getattr(o, name) == getattr(wanted, name) for name in setting) for o in seen)

    assert all(among(setting) for setting in CLIPS + PENALTIES + CORRECTIONS)


@pytest.mark.parametrize(
    "build", [lambda b: b, lambda b: b.torch(), lambda b: b.torch(torch.float32)], ids=["numpy", "f64", "f32"]
)
def test_arrays_and_tensors_go_through_the_same_function(build: Callable) -> None:
    batch = random_batch(7)
    objective = Objective(
        loss_type="grpo",
        beta=0.1,
        kl_estimator="k3_ratio",
        importance_sampling_correction="token_truncate",
        off_policy_mask_threshold=0.1,
        delta=2.0,
        dual_clip=3.0,
    )
    expected = token_grads.loss_grads(*batch.terms(objective))
    found = token_grads.loss_grads(*build(batch).terms(objective))
    assert type(found.grad_B_T) is type(build(batch).logp)
    assert found.grad_B_T.dtype == build(batch).logp.dtype
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(got), want, atol=1e-5)
