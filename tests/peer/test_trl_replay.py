"""Twenty steps of ours, then twenty of TRL's GRPOTrainer on the very same samples: the same parameters. `pytest -m peer`."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tests.peer.test_trl import keep
from tests.tiny import tiny_model
from workbench.algorithm import advantages
from workbench.core.config import RunConfig
from workbench.core.types import Group, Prompt, Request, group_ids, sample_seed
from workbench.models import embedded
from workbench.models.load import load_policy
from workbench.rollouts.local import LocalEngine
from workbench.train.update import Updater, sampling_of

pytestmark = pytest.mark.peer
STEPS, PROMPTS, SAMPLES = 20, 3, 4
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # our settings, and what TRL calls them where that differs
    "trl-default": ({}, {}),
    "grpo, k3 x ratio": (
        {"loss_type": "grpo", "beta": 0.04, "kl_estimator": "k3_ratio"},
        {"use_bias_correction_kl": True},
    ),
    "grpo, k3": ({"loss_type": "grpo", "beta": 0.04}, {"use_bias_correction_kl": False}),
}


class Replay(NamedTuple):
    """What our run left: each step's groups, and the weights after all of them."""

    steps: list[list[Group]]
    weights: dict[str, torch.Tensor]


def reward(ids: Any) -> float:
    """Something that differs between answers: the share of even tokens, and a little for length."""
    ids = np.asarray(ids)
    return float((ids % 2 == 0).mean()) + 0.05 * len(ids)


def ours(start: Any, tokenizer: Any, config: RunConfig) -> Replay:
    policy = load_policy(config, model=copy.deepcopy(start), tokenizer=tokenizer)
    updater, engine = Updater(policy, config), LocalEngine(policy)
    random = np.random.default_rng(0)
    steps = []
    for step in range(config.steps):
        requests = [
            Request(
                Prompt("", token_ids=tuple(int(i) for i in random.integers(3, 60, 4 + p)), id=f"{step}/{p}"),
                tuple(sample_seed(1, step, str(p), i) for i in range(SAMPLES)),
            )
            for p in range(PROMPTS)
        ]
        groups = engine.generate(requests, sampling_of(config))
        rewards_B_F = np.array([[reward(r.token_ids)] for g in groups for r in g.rollouts])
        asked = advantages.from_rewards(
            rewards_B_F, np.ones(1), group_ids(groups), scale=config.scale_rewards
        )
        reference = updater.reference(groups, config) if config.beta else None
        updater.step(groups, asked.advantages_B, config, step, reference_B_T=reference)
        steps.append(groups)
    return Replay(steps, {name: value.detach().clone() for name, value in policy.model.named_parameters()})


def theirs(
    start: Any, tokenizer: Any, config: RunConfig, replay: Replay, more: dict[str, Any], folder: Path
) -> dict[str, torch.Tensor]:
    """The same steps by TRL: its advantages, loss, clipping, schedule and optimiser; only the samples are given."""
    trl = pytest.importorskip("trl")
    dataset = pytest.importorskip("datasets").Dataset.from_list(
        [{"prompt": str(i)} for i in range(PROMPTS * STEPS)]
    )
    waiting = iter(replay.steps)

    def rollout(prompts: Any, trainer: Any) -> dict[str, Any]:
        groups = next(waiting)
        assert len(prompts) == PROMPTS * SAMPLES
        return {
            "prompt_ids": [list(g.prompt.token_ids) for g in groups for _ in g.rollouts],
            "completion_ids": [r.token_ids.tolist() for g in groups for r in g.rollouts],
            "logprobs": None,
        }

    args = trl.GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=PROMPTS * SAMPLES,
        gradient_accumulation_steps=1,
        num_generations=SAMPLES,
        max_completion_length=config.max_completion_length,
        max_steps=STEPS * config.num_iterations,
        num_iterations=config.num_iterations,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        loss_type=config.loss_type,
        beta=config.beta,
        epsilon=config.epsilon,
        epsilon_high=config.clip_high,
        importance_sampling_level=config.importance_sampling_level,
        scale_rewards=config.scale_rewards,
        max_grad_norm=config.max_grad_norm,
        adam_epsilon=config.adam_epsilon,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1000,
        disable_tqdm=True,
        **more,
    )
    trainer = trl.GRPOTrainer(
        model=copy.deepcopy(start),
        reward_funcs=lambda completion_ids, **rest: [reward(ids) for ids in completion_ids],
        args=args,
        train_dataset=dataset,
        processing_class=tokenizer,
        rollout_func=rollout,
    )
    if trainer.ref_model is not None:  # it would be loaded by name, and this model has none on disk
        trainer.ref_model.load_state_dict(start.state_dict())
    trainer.train()
    assert next(waiting, None) is None
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("name", CASES)
def test_twenty_replayed_steps_end_at_the_same_parameters(name, tmp_path):
    settings, more = CASES[name]
    tokenizer = AutoTokenizer.from_pretrained(embedded.folder(), padding_side="left")
    start = tiny_model(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    start.save_pretrained(tmp_path / "start")
    start.config._name_or_path = str(tmp_path / "start")
    shared = {
        "steps": STEPS,
        "prompts_per_step": PROMPTS,
        "num_generations": SAMPLES,
        "max_completion_length": 12,
        "learning_rate": 1e-3,
        "device": "cpu",
    }
    config = RunConfig.build("trl-default", {**shared, **settings})
    replay = ours(start, tokenizer, config)
    other = theirs(start, tokenizer, config, replay, more, tmp_path / "trl")
    begun = dict(start.named_parameters())
    gaps = torch.cat([(replay.weights[n] - other[n]).flatten() for n in other])
    way = torch.cat([(replay.weights[n] - begun[n]).detach().flatten() for n in other])
    # Adam divides a gradient by its own size: where that is rounding alone, single weights may part by a step of its rate.
    worst, apart = float(gaps.abs().max()), float(gaps.norm() / way.norm())
    print(
        f"{name}: worst difference of a parameter {worst:.1e}, all together {apart:.1e} of the way of {STEPS} steps"
    )
    keep(f"replay/{name}", {"worst_parameter": worst, "share_of_the_way": apart})
    assert float(way.abs().max()) > 5e-3
    assert apart < 1e-3 and worst < 1e-4
