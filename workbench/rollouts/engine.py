"""The interface of samplers, and what all of them share: requests in, groups of completions with their log-probabilities out."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.core.types import FinishReason, Group, Request, Rollout, Sampling
from workbench.models import logprobs
from workbench.models.policy import Policy

Completion = tuple[NDArray[np.int32], NDArray[np.float32]]
"""(T,) token ids and (T,) log-probabilities of one completion."""
Progress = Callable[[int, int], None]
"""Called with (completions finished, completions requested)."""
OnGroupDone = Callable[[int, Group], None]
"""Called with (index of a request, its group) as soon as all its completions have ended."""


class Capabilities(NamedTuple):
    """What callers may count on beyond the completions themselves."""

    shares_weights: bool
    """Samples with the policy's own parameters: an update is seen at once, and so is an adapter that is switched off for a moment.
    False for an engine that holds a copy, which `sync` brings up to date."""
    independent_samples: bool
    """A completion depends on its prompt, its seed and the weights alone, so any split of the requests gives the same completions."""


class Engine(Protocol):
    """Draws completions from the policy. Everything that callers use of an engine is declared here."""

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """What this engine guarantees, with the policy as it is."""
        ...

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """One group per request, in order; completion i of a group was drawn with its seed i. `on_group_done` may be called for
        groups that are finished before the others, or for none."""
        ...

    def sync(self, version: int) -> None:
        """Sample with the policy's present weights from now on, those after `version` optimiser updates; whatever was derived from
        earlier ones is dropped. The loop calls it after each step's updates."""
        ...

    def notices(self) -> list[str]:
        """What the engine had to change to go on since the last call, one sentence each."""
        ...


class PolicyEngine:
    """What engines of this process have in common: they sample with the policy's own parameters."""

    name: str

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.version = policy.version

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return Capabilities(shares_weights=True, independent_samples=True)

    def sync(self, version: int) -> None:
        """See `Engine.sync`. The parameters are the policy's, and copies of them live no longer than one `generate`: nothing to drop."""
        self.version = version

    def notices(self) -> list[str]:
        """See `Engine.notices`: nothing is ever changed here."""
        return []

    def _groups(self, requests: Sequence[Request], completions: Iterable[Completion]) -> list[Group]:
        return assemble(requests, completions, self.policy, self.name, self.version)


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """(count,) numbers in [0, 1) of one sample: a counter-based stream, so completions do not depend on their neighbours."""
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
    kept_RV = logprobs.sampling_mask(scaled_RV, sampling)
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
    requests: Sequence[Request], completions: Iterable[Completion], policy: Policy, engine: str, version: int
) -> list[Group]:
    """Cut a flat list of completions into groups; one that does not end in an end-of-sequence token was truncated.

    `engine`: the name of the sampler; `version`: optimiser updates that its weights had seen.
    """
    rollouts: list[Rollout] = []
    seeds = [seed for request in requests for seed in request.seeds]
    for seed, (ids, logps) in zip(seeds, completions, strict=True):
        stopped = len(ids) > 0 and int(ids[-1]) in policy.eos_ids
        reason: FinishReason = "stop" if stopped else "length"
        text = policy.text_of(ids)
        rollouts.append(
            Rollout(
                token_ids=ids,
                logprobs=logps,
                text=text,
                finish_reason=reason,
                engine=engine,
                weights_version=version,
                seed=seed,
            )
        )
    groups, start = [], 0
    for request in requests:
        stop = start + len(request.seeds)
        groups.append(Group(request.prompt, tuple(rollouts[start:stop])))
        start = stop
    return groups


def max_lengths(requests: Sequence[Request], sampling: Sampling, policy: Policy) -> list[int]:
    """Tokens that each request's completions may have: the setting, or what the context leaves after the prompt."""
    return [
        min(sampling.max_completion_length, policy.context - len(request.prompt.token_ids))
        for request in requests
    ]
