"""Stages 2 and 3 together: a step's prompts in, scored groups out; groups without signal may be extended or replaced.

Plain GRPO samples once. Adaptive group size extends a group whose answers all scored the same; dynamic sampling (DAPO) replaces
groups that stay without signal by fresh prompts. Both keep a sample's seed a pure function of (run, step, prompt, index).
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
from workbench.train.reward_stage import Phase, Scoring


class Collected(NamedTuple):
    """What one step has to learn from."""

    groups: list[Group]
    scores_B: list[Score]
    drawn: int
    """Answers sampled for the step, those of replaced groups included."""
    replaced: int
    """Groups thrown away because they held no signal."""
    wasted: dict[str, int]
    """Answers spent on those groups, by prompt id; what the kept ones cost is their own size."""


def collect(
    engine: Engine,
    scoring: Scoring,
    prompts: Sequence[Prompt],
    spare: Sequence[Prompt],
    config: RunConfig,
    sampling: Sampling,
    step: int,
    phase: Phase,
) -> Collected:
    """Sample and score one step. `spare`: other prompts, in the order in which dynamic sampling takes them."""
    kept: list[tuple[Group, list[Score]]] = []
    asked, drawn, replaced = list(prompts), 0, 0
    wasted: Counter[str] = Counter()
    for attempt in range(1 + (config.max_resample_rounds if config.dynamic_sampling else 0)):
        scored = _sample(engine, scoring, asked, config, sampling, step, phase)
        drawn += sum(len(group) for group, _ in scored)
        last = not config.dynamic_sampling or attempt == config.max_resample_rounds
        # The last round keeps what it has: a step short of groups would change the objective's scale unseen.
        dead_P = np.zeros(len(scored), bool) if last else _without_signal(scored)
        kept += [pair for pair, dead in zip(scored, dead_P, strict=True) if not dead]
        for (group, _), dead in zip(scored, dead_P, strict=True):
            if dead:
                wasted[group.prompt.id] += len(group)
        missing = config.prompts_per_step - len(kept)
        if missing <= 0 or last or scoring.gave_up:
            break
        asked, spare = list(spare[:missing]), spare[missing:]
        replaced += len(asked)
        if not asked:
            break
    return Collected(
        [group for group, _ in kept],
        [score for _, scores in kept for score in scores],
        drawn,
        replaced,
        dict(wasted),
    )


def _sample(
    engine: Engine,
    scoring: Scoring,
    prompts: Sequence[Prompt],
    config: RunConfig,
    sampling: Sampling,
    step: int,
    phase: Phase,
) -> list[tuple[Group, list[Score]]]:
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
        ahead = scoring.ahead(step)
        groups = engine.generate(requests, sampling, phase("sample"), ahead)
        scores_B = scoring.step(groups, step, phase, ahead)
        parts = list(zip(groups, _cut(scores_B, groups), strict=True))
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
        if config.adaptive_group_max is not None and not scoring.gave_up:
            for i, undecided in enumerate(_without_signal(scored)):
                if undecided:
                    counts[i] = min(config.num_generations, config.adaptive_group_max - first[i])
    return scored


def _without_signal(scored: Sequence[tuple[Group, list[Score]]]) -> NDArray[np.bool_]:
    """(P,) which groups scored the same throughout."""
    rewards_B = np.array([np.nan if s.reward is None else s.reward for _, scores in scored for s in scores])
    result = advantages.compute(rewards_B, group_ids([group for group, _ in scored]))
    return np.asarray(result.zero_std_P)


def _cut(scores_B: list[Score], groups: Sequence[Group]) -> list[list[Score]]:
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return [scores_B[end - len(group) : end] for end, group in zip(ends, groups, strict=True)]
