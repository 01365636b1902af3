"""Tokens that the policy did not write (prefill, a user, a tool) are read and not trained."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny import tiny_policy
from tests.unit.update.test_update import advantages, config, read_packed, sampled
from workbench.core.types import Group, Rollout, Turn
from workbench.models.policy import Policy
from workbench.train.distributed.messages import pack, pack_groups, unpack, unpack_groups
from workbench.train.update import Updater


def with_turns(groups: list[Group]) -> list[Group]:
    """In every other completion of at least six tokens a tool wrote tokens 2 to 4; one short completion is all prefill."""

    def turns(place: int, rollout: Rollout) -> tuple[Turn, ...]:
        if place == 0:
            return (Turn("prefill", 0, rollout.length),)
        if place % 2 or rollout.length < 6:
            return ()
        return (Turn("policy", 0, 2), Turn("tool", 2, 5), Turn("policy", 5, rollout.length))

    places = iter(range(1000))
    return [
        replace(group, rollouts=tuple(replace(r, turns=turns(next(places), r)) for r in group.rollouts))
        for group in groups
    ]


def by_hand(policy: Policy, groups: list[Group], advantages_B: np.ndarray) -> list[torch.Tensor]:
    """Gradient of -sum over trained tokens of A log pi / (trained tokens), one completion at a time: at ratio 1 that is `dapo`."""
    terms, count, row = [], 0, 0
    for group in groups:
        for rollout in group.rollouts:
            ids = torch.tensor([[*group.prompt.token_ids, *rollout.token_ids.tolist()]])
            start = len(group.prompt.token_ids)
            logp_T = torch.log_softmax(policy.model(ids).logits[0, start - 1 : -1], -1)
            logp_T = logp_T.gather(1, ids[0, start:, None])[:, 0]
            written = [turn for turn in rollout.turns if turn.role == "policy"]
            trained = (
                list(range(rollout.length))
                if not rollout.turns
                else [t for turn in written for t in range(turn.start, turn.stop)]
            )
            terms += [advantages_B[row] * logp_T[t] for t in trained]
            count += len(trained)
            row += 1
    loss = -torch.stack(terms).sum() / count
    return list(torch.autograd.grad(loss, policy.trainable()))


@pytest.mark.parametrize("way", ["packed", "padded"])
def test_only_tokens_that_the_policy_wrote_have_a_gradient(way: str) -> None:
    policy = tiny_policy()
    settings = config(loss_type="dapo", beta=0.0, micro_batch_tokens=128)
    groups = with_turns(sampled(policy, settings))
    assert sum(bool(r.turns) for g in groups for r in g.rollouts) > 3
    expected = by_hand(copy.deepcopy(policy), groups, advantages(groups))
    if way == "packed":
        read_packed(policy)
    updater = Updater(policy, settings)
    found: list[torch.Tensor] = []
    updater.optimizer.step = lambda: found.extend(p.grad.clone() for p in policy.trainable())  # type: ignore[method-assign,assignment]
    result = updater.step(groups, advantages(groups), settings, 0)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)
    assert result.tokens.weight is not None
    for grad_T, rollout in zip(result.tokens.weight, (r for g in groups for r in g.rollouts), strict=True):
        assert ((grad_T != 0) == rollout.loss_mask_T).all()


def test_a_rollout_without_turns_is_trained_whole_and_turns_say_which_tokens_are() -> None:
    rollout = Rollout(np.arange(5, dtype=np.int32), np.zeros(5, np.float32), "", "stop")
    assert rollout.loss_mask_T.tolist() == [True] * 5
    two = replace(rollout, turns=(Turn("user", 0, 1), Turn("policy", 1, 3), Turn("tool", 3, 5)))
    assert two.loss_mask_T.tolist() == [False, True, True, False, False]


def test_ranks_get_the_turns_too() -> None:
    groups = with_turns(sampled(tiny_policy(), config()))
    fields, arrays = pack_groups(groups)
    again = unpack_groups(*unpack(pack(fields, arrays)))
    assert [r.turns for g in again for r in g.rollouts] == [r.turns for g in groups for r in g.rollouts]
