"""Stage 4 as the loop sees it: a step's scores in, the advantage of each of its answers out.

The arithmetic is that of `advantages.py`; here scores become its arrays, and the KL penalty goes into them where a run says so.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.algorithm import advantages, token_grads
from workbench.core.config import RunConfig
from workbench.core.types import Score, group_ids
from workbench.train.rollout_stage import Collected
from workbench.train.update import Updater


def advantages_of(
    found: Collected,
    config: RunConfig,
    names: Sequence[str],
    updater: Updater,
    reference_B_T: torch.Tensor | None,
) -> advantages.Advantages:
    """Advantages of a step's answers; the KL penalty goes into the rewards first where the run says so. `names`: what the values
    of each of the config's rewards are called."""
    counted = [
        (name, spec.weight)
        for name, spec in zip(names, config.rewards, strict=False)
        if spec.enabled and spec.weight
    ]
    rewards_B_F = table(found.scores_B, [name for name, _ in counted])
    weights_F = np.array([weight for _, weight in counted])
    penalty_B = None
    if config.kl_in == "reward" and config.beta and reference_B_T is not None:
        seen = updater.score(found.groups, config, logp_only=True)
        lengths_B = torch.tensor([rollout.length for group in found.groups for rollout in group.rollouts])
        mask_B_T = torch.arange(seen.logp_B_T.shape[1]) < lengths_B[:, None]
        penalty_B = -token_grads.kl_in_rewards(
            torch.zeros(len(rewards_B_F)),
            seen.logp_B_T.cpu(),
            reference_B_T.cpu(),
            mask_B_T,
            config.beta,
            config.kl_estimator,
        ).numpy()
    return advantages.by_settings(
        rewards_B_F, weights_F, group_ids(found.groups), config, penalty_B=penalty_B
    )


def table(scores_B: Sequence[Score], names: Sequence[str]) -> NDArray[np.float64]:
    """(B, F) value of each reward for each answer. NaN where a reward gave none, and everywhere for an answer without any: absent is
    not zero."""
    rows = [
        [
            np.nan if score.reward is None or (value := score.values.get(name)) is None else value
            for name in names
        ]
        for score in scores_B
    ]
    return np.array(rows, dtype=np.float64).reshape(len(scores_B), len(names))
