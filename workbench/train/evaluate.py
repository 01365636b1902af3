"""Held-out evaluation: the policy on problems it never trains on, sampled and greedy, with 95 % confidence intervals.

An evaluation is recorded like a step, as groups of kind eval without gradient. Watched prompts get several samples each, so that every
run has complete timelines of them from the base model on.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workbench.core.config import RunConfig
from workbench.core.types import EvalMode, Group, Prompt, Request, Score, StepRecord, sample_seed
from workbench.diagnose.attempts import Attempts, at_k
from workbench.diagnose.interval import wilson
from workbench.diagnose.style import final_answer
from workbench.prompts import watched
from workbench.rollouts.engine import Engine
from workbench.train.reward_stage import Phase, RewardStage
from workbench.train.update import sampling_of

RIGHT = 0.5
"""A completion counts as right from this value of the accuracy reward on."""


def evaluate(
    engine: Engine,
    reward_stage: RewardStage,
    heldout: Sequence[Prompt],
    accuracy_reward: str,
    config: RunConfig,
    step: int,
    phase: Phase,
) -> list[StepRecord]:
    """One sampled and one greedy check of the policy after `step` finished steps; none where no problems are held out."""
    return (
        [
            _evaluate(engine, reward_stage, heldout, accuracy_reward, config, step, mode, phase)
            for mode in ("sampled", "greedy")
        ]
        if heldout
        else []
    )


def _evaluate(
    engine: Engine,
    reward_stage: RewardStage,
    heldout: Sequence[Prompt],
    accuracy_reward: str,
    config: RunConfig,
    step: int,
    mode: EvalMode,
    phase: Phase,
) -> StepRecord:
    greedy = mode == "greedy"
    sampling = replace(sampling_of(config), temperature=0.0) if greedy else sampling_of(config)
    # Seeds do not depend on the step: every evaluation draws the same random numbers, so that only the policy differs.
    often = {prompt.id for prompt in watched(heldout, config.watched_prompts)} if not greedy else set()
    requests = [
        Request(
            prompt,
            tuple(
                sample_seed(config.seed, -1, prompt.id, i)
                for i in range(config.watched_samples if prompt.id in often else 1)
            ),
        )
        for prompt in heldout
    ]
    sampled = engine.generate(requests, sampling, phase(f"check, {mode}"))
    groups = [Group(group.prompt, group.rollouts, "eval") for group in sampled]
    scores_B = reward_stage.score_heldout(groups, step, phase)
    return StepRecord(
        step=step,
        kind="eval",
        mode=mode,
        groups=groups,
        scores_B=scores_B,
        metrics=_metrics(groups, scores_B, accuracy_reward, mode),
        accuracy_reward=accuracy_reward,
    )


def _metrics(
    groups: Sequence[Group], scores_B: Sequence[Score], accuracy_reward: str, mode: EvalMode
) -> dict[str, float]:
    accuracies, rewards, problems = [], [], []
    start = 0
    for group in groups:
        scores = scores_B[start : start + len(group)]
        start += len(group)
        values = [value for score in scores if (value := score.values.get(accuracy_reward)) is not None]
        rewards += [score.reward for score in scores if score.reward is not None]
        right = [_share(score.values.get(accuracy_reward)) for score in scores]
        final_answers = [final_answer(rollout.text) for rollout in group.rollouts]
        problems.append(Attempts(np.array(right), final_answers))
        if values:
            accuracies.append(float(np.mean([value >= RIGHT for value in values])))
    # A watched prompt counts once, with the share of its samples that are right, so every problem weighs the same.
    interval = wilson(sum(accuracies), len(accuracies))
    lengths = [rollout.length for group in groups for rollout in group.rollouts]
    name = f"heldout/{mode}"
    found = {
        f"{name}/accuracy": interval.share,
        f"{name}/accuracy_low": interval.low,
        f"{name}/accuracy_high": interval.high,
        f"{name}/problems": float(len(accuracies)),
        f"{name}/mean_length": float(np.mean(lengths)),
        f"{name}/clipped_ratio": float(
            np.mean([r.finish_reason == "length" for g in groups for r in g.rollouts])
        ),
    }
    if rewards:
        found[f"{name}/reward"] = float(np.mean(rewards))
    return found | {f"{name}/{metric}": value for metric, value in at_k(problems).items()}


def _share(value: float | None) -> float:
    """1 for right, 0 for wrong, NaN where nothing judged."""
    return np.nan if value is None else float(value >= RIGHT)
