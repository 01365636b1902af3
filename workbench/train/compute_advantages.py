"""Stage 4 as the loop sees it: a step's scores in, the advantage of each of its completions out.

The arithmetic is that of `algorithm/advantages.py`; here scores become its arrays, and the KL penalty joins them where a run puts it
into the rewards.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.algorithm import advantages, token_grads
from workbench.core.config import RunConfig
from workbench.core.types import Score, group_ids
from workbench.train.rollout_stage import ScoredGroups
from workbench.train.update import Updater


def compute_advantages(
    scored: ScoredGroups,
    config: RunConfig,
    names: Sequence[str],
    updater: Updater,
    reference_B_T: torch.Tensor | None,
) -> advantages.Advantages:
    """(B,) advantages of a step's completions, with the statistics of their groups.

    `names`: what the values of each of the config's rewards are called. `reference_B_T`: log-probabilities under the reference.
    """
    counted = [
        (name, spec.weight)
        for name, spec in zip(names, config.rewards, strict=False)
        if spec.enabled and spec.weight
    ]
    rewards_B_F = reward_table(scored.scores_B, [name for name, _ in counted])
    weights_F = np.array([weight for _, weight in counted])
    penalty_B = None
    if config.kl_in == "reward" and config.beta and reference_B_T is not None:
        penalty_B = _kl_penalty(scored, config, updater, reference_B_T)
    return advantages.by_settings(
        rewards_B_F, weights_F, group_ids(scored.groups), config, penalty_B=penalty_B
    )


def reward_table(scores_B: Sequence[Score], names: Sequence[str]) -> NDArray[np.float64]:
    """(B, F) value of each reward for each completion. NaN where a reward gave none, and in the whole row of a completion without any
    reward: absent is not zero."""
    rows = [
        [
            np.nan if score.reward is None or (value := score.values.get(name)) is None else value
            for name in names
        ]
        for score in scores_B
    ]
    return np.array(rows, dtype=np.float64).reshape(len(scores_B), len(names))


def _kl_penalty(
    scored: ScoredGroups, config: RunConfig, updater: Updater, reference_B_T: torch.Tensor
) -> NDArray[np.float64]:
    """(B,) beta times each completion's KL(policy || reference), summed over its tokens."""
    policy = updater.score(scored.groups, config, logp_only=True)
    rollouts = [rollout for group in scored.groups for rollout in group.rollouts]
    mask_B_T = torch.zeros(policy.logp_B_T.shape, dtype=torch.bool)
    for row, rollout in enumerate(rollouts):
        mask_B_T[row, : rollout.length] = torch.from_numpy(rollout.loss_mask_T)
    with_penalty_B = token_grads.kl_in_rewards(
        torch.zeros(len(rollouts)),
        policy.logp_B_T.cpu(),
        reference_B_T.cpu(),
        mask_B_T,
        config.beta,
        config.kl_estimator,
    )
    return -np.asarray(with_penalty_B)
