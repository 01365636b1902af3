"""Stages 2 and 3 together: a step's prompts in, scored groups out; groups without signal may be extended or replaced.

Plain GRPO samples once. Adaptive group size extends a group whose completions all scored the same; dynamic sampling (DAPO, 2503.14476)
replaces groups that stay without signal by fresh prompts. Both keep a sample's seed a pure function of (run, step, prompt, index).
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.config import RunConfig
from workbench.core.types import Group, Prompt, Request, Sampling, Score, group_ids, sample_seed
from workbench.rollouts.engine import Engine
from workbench.train.reward_stage import Phase, RewardStage


class ScoredGroups(NamedTuple):
    """What one step learns from."""

    groups: list[Group]
    scores_B: list[Score]
    drawn: int
    """Completions sampled for the step, those of replaced groups included."""
    replaced: int
    """Groups replaced because they held no signal."""
    replaced_samples: dict[str, int]
    """Completions spent on those groups, by prompt id."""


def rollout_stage(
    engine: Engine,
    reward_stage: RewardStage,
    prompts: Sequence[Prompt],
    replacement_prompts: Sequence[Prompt],
    config: RunConfig,
    sampling: Sampling,
    step: int,
    phase: Phase,
) -> ScoredGroups:
    """Sample and score one step. `replacement_prompts`: others, in the order in which dynamic sampling takes them."""
    kept: list[tuple[Group, list[Score]]] = []
    wanted, replacements = list(prompts), list(replacement_prompts)
    drawn, replaced = 0, 0
    replaced_samples: Counter[str] = Counter()
    rounds = 1 + (config.max_resample_rounds if config.dynamic_sampling else 0)
    for number in range(rounds):
        scored = _sample(engine, reward_stage, wanted, config, sampling, step, phase)
        drawn += sum(len(group) for group, _ in scored)
        # The last round keeps what it has: a step short of groups would change the objective's scale unseen.
        last = number == rounds - 1
        zero_std_P = np.zeros(len(scored), bool) if last else _zero_std(scored)
        kept += [pair for pair, zero_std in zip(scored, zero_std_P, strict=True) if not zero_std]
        for (group, _), zero_std in zip(scored, zero_std_P, strict=True):
            if zero_std:
                replaced_samples[group.prompt.id] += len(group)
        missing = config.prompts_per_step - len(kept)
        if missing <= 0 or last or reward_stage.interrupted:
            break
        wanted, replacements = replacements[:missing], replacements[missing:]
        replaced += len(wanted)
        if not wanted:
            break
    return ScoredGroups(
        [group for group, _ in kept],
        [score for _, scores in kept for score in scores],
        drawn,
        replaced,
        dict(replaced_samples),
    )


def _sample(
    engine: Engine,
    reward_stage: RewardStage,
    prompts: Sequence[Prompt],
    config: RunConfig,
    sampling: Sampling,
    step: int,
    phase: Phase,
) -> list[tuple[Group, list[Score]]]:
    """One scored group a prompt; with adaptive group size, those without signal are extended up to its limit."""
    counts = [config.num_generations] * len(prompts)
    scored: list[tuple[Group, list[Score]]] = []
    first = [0] * len(prompts)
    while any(counts):
        index = [i for i, count in enumerate(counts) if count]
        requests = [
            Request(
                prompts[i],
                tuple(sample_seed(config.seed, step, prompts[i].id, first[i] + j) for j in range(counts[i])),
            )
            for i in index
        ]
        early = reward_stage.early(step)
        groups = engine.generate(requests, sampling, phase("sample"), early)
        scores_B = reward_stage.score(groups, step, phase, early)
        parts = list(zip(groups, _by_group(scores_B, groups), strict=True))
        if not scored:
            scored = parts
        else:
            for i, (group, scores) in zip(index, parts, strict=True):
                old, old_scores = scored[i]
                scored[i] = (
                    Group(old.prompt, (*old.rollouts, *group.rollouts), old.kind),
                    [*old_scores, *scores],
                )
        first = [len(group) for group, _ in scored]
        counts = [0] * len(prompts)
        if config.adaptive_group_max is not None and not reward_stage.interrupted:
            for i, zero_std in enumerate(_zero_std(scored)):
                if zero_std:
                    counts[i] = min(config.num_generations, config.adaptive_group_max - first[i])
    return scored


def _zero_std(scored: Sequence[tuple[Group, list[Score]]]) -> NDArray[np.bool_]:
    """(P,) which groups scored the same throughout."""
    rewards_B = np.array([np.nan if s.reward is None else s.reward for _, scores in scored for s in scores])
    result = advantages.compute(rewards_B, group_ids([group for group, _ in scored]))
    return np.asarray(result.zero_std_P)


def _by_group(scores_B: list[Score], groups: Sequence[Group]) -> list[list[Score]]:
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return [scores_B[end - len(group) : end] for end, group in zip(ends, groups, strict=True)]
