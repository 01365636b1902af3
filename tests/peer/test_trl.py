"""Value and gradient of every loss against TRL's own `_compute_loss` on random batches: `pytest -m peer` with the peer extra."""

import itertools
import json
import types
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tests.unit.algorithm.batches import random_batch
from workbench.algorithm import losses, token_grads
from workbench.algorithm.token_grads import Objective

pytestmark = pytest.mark.peer
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "peer_trl.json"
LOSSES = ["grpo", "bnpo", "dapo", "dr_grpo", "cispo", "sapo", "luspo"]
CLIPS = [(0.2, 0.2, None), (0.2, 0.28, None), (0.2, 0.2, 1.5), (3e-4, 4e-4, None)]
PENALTIES = [(0.0, False), (0.1, False), (0.1, True)]
CORRECTIONS = [
    None,
    ("token_truncate", None, 1.2),
    ("token_mask", 0.8, 1.2),
    ("sequence_mask", None, 1.5),
    ("sequence_truncate", 0.7, 1.5),
]
MAX_LENGTH = 9


class OneProcess:
    """The accelerator of a single process."""

    num_processes, sync_gradients = 1, True

    def gather(self, value):
        return value

    def reduce(self, value, reduction=None):
        return value


def theirs(
    batch, logp, entropy, loss_type, level, clip, penalty, correction, threshold, bonus
) -> torch.Tensor:
    """TRL's loss. Its trainer is replaced by the attributes that `_compute_loss` reads, because no model takes part."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    beta, bias = penalty
    low, high, delta = clip
    corrected = correction is not None
    me = types.SimpleNamespace(
        args=types.SimpleNamespace(
            delta=delta,
            use_bias_correction_kl=bias,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
            vespo_k_pos=2,
        ),
        loss_type=loss_type,
        importance_sampling_level=level,
        epsilon_low=low,
        epsilon_high=high,
        beta=beta,
        off_policy_mask_threshold=threshold,
        top_entropy_quantile=1.0,
        use_vllm=corrected,
        vllm_importance_sampling_correction=corrected,
        max_completion_length=MAX_LENGTH,
        current_gradient_accumulation_steps=1,
        accelerator=OneProcess(),
        model=types.SimpleNamespace(training=True),
        aux_loss_enabled=False,
        _entropy_bonus_enabled=bonus > 0,
        use_adaptive_entropy=False,
        entropy_coef=bonus,
        _metrics={"train": defaultdict(list)},
        get_off_policy_mask=trainer.get_off_policy_mask,
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logp, entropy, None),
    )
    inputs = {
        "prompt_ids": torch.zeros(8, 1),
        "prompt_mask": torch.ones(8, 1),
        "completion_ids": torch.zeros(8, 6),
        "completion_mask": batch.mask,
        "advantages": batch.advantages_B,
        "old_per_token_logps": batch.old,
        "ref_per_token_logps": batch.ref,
        "num_items_in_batch": batch.mask.sum(),
    }
    if corrected:
        mode, floor, cap = correction
        gap = (batch.old - batch.sampler) * batch.mask
        ratio = (gap.sum(-1, keepdim=True) if mode.startswith("sequence") else gap).exp()
        outside = (ratio < (floor or -1)) | (ratio > cap)
        inputs["sampling_per_token_logps"] = batch.sampler
        inputs["importance_sampling_ratio"] = (
            ratio.clamp(min=floor, max=cap) if mode.endswith("truncate") else ratio.masked_fill(outside, 0.0)
        )
    return trainer._compute_loss(me, None, inputs)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_loss_and_gradient_equal_those_of_trl(loss_type, level):
    pytest.importorskip("trl")
    worst_value = worst_gradient = 0.0
    for seed in range(3):
        batch = random_batch(seed, 8, 6).torch()
        # TRL divides by the tokens of a row; one without any is not a case it has.
        first_only = torch.tensor([1.0] + [0.0] * 5, dtype=torch.float64)
        batch = batch._replace(mask=torch.where(batch.mask.sum(1, keepdim=True) == 0, first_only, batch.mask))
        for clip, penalty, correction, threshold, bonus in itertools.product(
            CLIPS, PENALTIES, CORRECTIONS, [None, 0.02], [0.0, 0.05]
        ):
            logp = batch.logp.clone().requires_grad_()
            entropy = -logp.detach()
            value = theirs(
                batch, logp, entropy, loss_type, level, clip, penalty, correction, threshold, bonus
            )
            (gradient,) = torch.autograd.grad(value, logp)
            mode, floor, cap = correction or ("off", None, 3.0)
            objective = Objective(
                loss_type=loss_type,
                importance_sampling_level=level,
                epsilon=clip[0],
                epsilon_high=clip[1],
                delta=clip[2],
                beta=penalty[0],
                kl_estimator="k3_ratio" if penalty[1] else "k3",
                importance_sampling_correction=mode,
                importance_sampling_clip_min=floor,
                importance_sampling_clip_max=cap,
                off_policy_mask_threshold=threshold,
                entropy_coef=bonus,
                max_completion_length=MAX_LENGTH,
            )
            terms = (
                batch.logp,
                batch.old,
                batch.ref,
                batch.sampler if correction else None,
                batch.advantages_B,
                batch.mask,
                objective,
                batch.normalizer(),
            )
            worst_value = max(
                worst_value, abs(losses.loss(*terms, entropy_B_T=entropy).total.item() - value.item())
            )
            worst_gradient = max(
                worst_gradient, (token_grads.loss_grads(*terms).grad_B_T - gradient).abs().max().item()
            )
    print(
        f"{loss_type} {level}: worst difference {worst_value:.1e} of the value, {worst_gradient:.1e} of the gradient"
    )
    keep(f"{loss_type}/{level}", {"value": worst_value, "gradient": worst_gradient})
    # TRL computes sapo's temperature in single precision.
    assert max(worst_value, worst_gradient) < (2e-7 if loss_type == "sapo" else 1e-12)


def keep(name: str, found: dict[str, float]) -> None:
    """Keep worst differences, with the versions they were measured with."""
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    versions = {package: version(package) for package in ("torch", "transformers", "trl")}
    known["measured with"] = {**versions, "machine": "CPU"}
    known[name] = {key: float(f"{value:.1e}") for key, value in found.items()}
    RESULT.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
