"""One interface for everything that answers: requests in, groups out, log-probabilities in every path."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.core.types import FinishReason, Group, Request, Rollout, Sampling
from workbench.models import logprobs as scoring
from workbench.models.load import Policy

Progress = Callable[[int, int], None]
"""Called with (answers finished, answers asked for)."""
OnGroupDone = Callable[[int, Group], None]
"""Called with (index of a request, its group) as soon as all its completions have ended."""


class Engine(Protocol):
    """Draws answers from the policy as it is now."""

    name: str

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """One group per request, in order; answer i of a group was drawn with its seed i. `on_group_done` may be called for groups that are finished before the
        others, or for none."""
        ...


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """(count,) numbers in [0, 1) of one sample: a counter-based stream, so answers do not depend on their neighbours."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def draw(logits_RV: Tensor, uniform_R: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Next token of each row by inverse CDF, and its log-probability under the actual sampling distribution.

    Temperature 0 takes the likeliest token; its log-probability is then the model's own, at temperature 1.
    """
    scaled_RV = logits_RV.float()
    if sampling.temperature not in (0.0, 1.0):
        scaled_RV = scaled_RV / sampling.temperature
    if sampling.temperature == 0:
        token_R = scaled_RV.argmax(-1)
        return token_R, scaled_RV.gather(1, token_R[:, None])[:, 0] - scaled_RV.logsumexp(-1)
    kept_RV = scoring.keep(scaled_RV, sampling)
    if kept_RV is not None:
        scaled_RV = scaled_RV.masked_fill(~kept_RV, float("-inf"))
    # The CDF in two levels, blocks and tokens: only one block of each row is ever summed up token by token.
    rows, vocabulary = scaled_RV.shape
    size = math.isqrt(vocabulary - 1) + 1
    mass_RV = scaled_RV.new_zeros((rows, -(-vocabulary // size) * size))
    top_R1 = scaled_RV.amax(-1, keepdim=True)
    torch.sub(scaled_RV, top_R1, out=mass_RV[:, :vocabulary]).exp_()
    mass_RCV = mass_RV.view(rows, -1, size)
    blocks_RC = mass_RCV.sum(-1).double().cumsum(-1)
    target_R1 = uniform_R[:, None] * blocks_RC[:, -1:]
    block_R1 = torch.searchsorted(blocks_RC, target_R1, right=True).clamp_(max=blocks_RC.shape[1] - 1)
    inside_RV = mass_RCV[torch.arange(rows, device=mass_RV.device), block_R1[:, 0]].double().cumsum(-1)
    before_R1 = blocks_RC.gather(1, block_R1) - inside_RV[:, -1:]
    # Rounding may put the target on the block's very end, where a token without mass may stand.
    rest_R1 = torch.minimum((target_R1 - before_R1).clamp_(min=0.0), inside_RV[:, -1:] * (1.0 - 1e-12))
    token_R = (block_R1 * size + torch.searchsorted(inside_RV, rest_R1, right=True))[:, 0]
    logp_R = scaled_RV.gather(1, token_R[:, None])[:, 0] - top_R1[:, 0] - blocks_RC[:, -1].log().float()
    return token_R, logp_R


def assemble(
    requests: Sequence[Request],
    answers: Iterable[tuple[NDArray[np.int32], NDArray[np.float32]]],
    policy: Policy,
    engine: str,
) -> list[Group]:
    """Cut a flat list of (token ids, log-probabilities) into groups; an answer that does not end in an end token was cut."""
    rollouts: list[Rollout] = []
    seeds = [seed for request in requests for seed in request.seeds]
    for seed, (ids, logps) in zip(seeds, answers, strict=True):
        stopped = len(ids) > 0 and int(ids[-1]) in policy.eos_ids
        reason: FinishReason = "stop" if stopped else "length"
        text = policy.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        rollouts.append(
            Rollout(
                token_ids=ids,
                logprobs=logps,
                text=text,
                finish_reason=reason,
                engine=engine,
                weights_version=policy.version,
                seed=seed,
            )
        )
    groups, start = [], 0
    for request in requests:
        stop = start + len(request.seeds)
        groups.append(Group(request.prompt, tuple(rollouts[start:stop])))
        start = stop
    return groups


def limit(requests: Sequence[Request], sampling: Sampling, policy: Policy) -> list[int]:
    """Tokens each request's answers may have: the setting, or what the context leaves after the prompt."""
    return [
        min(sampling.max_completion_length, policy.context - len(request.prompt.token_ids))
        for request in requests
    ]
