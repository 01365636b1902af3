"""The slow reference path and oracle: the library's own `generate`, one prompt at a time, with our seeds and our draw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from workbench.core.types import Group, Request, Sampling
from workbench.models.load import Policy
from workbench.rollouts.engine import OnGroupDone, Progress, assemble, draw, limit, uniforms


class _SeededDraw(LogitsProcessor):  # type: ignore[misc]
    """Turns `generate`'s greedy choice into our draw: all mass goes to the token that the sample's own stream picks."""

    def __init__(self, uniform_BT: Tensor, sampling: Sampling) -> None:
        self.uniform_BT, self.sampling = uniform_BT, sampling
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token_B, logp_B = draw(scores, self.uniform_BT[:, len(self.logps)], self.sampling)
        self.logps.append(logp_B)
        return torch.full_like(scores, float("-inf")).scatter(1, token_B[:, None], 0.0)


class PlainEngine:
    """Samples through `model.generate`: every architecture the library supports, no fan-out, no rows that leave."""

    name = "transformers"

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """See `Engine.generate`."""
        answers: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
        total = sum(len(request.seeds) for request in requests)
        limits = limit(requests, sampling, self.policy)
        for place, (request, tokens) in enumerate(zip(requests, limits, strict=True)):
            mine = self._group(request, tokens, sampling) if tokens > 0 else [_empty() for _ in request.seeds]
            answers += mine
            if on_group_done:
                on_group_done(place, *assemble([request], mine, self.policy, self.name))
            if progress:
                progress(len(answers), total)
        return assemble(requests, answers, self.policy, self.name)

    def _group(
        self, request: Request, tokens: int, sampling: Sampling
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        policy = self.policy
        prompt = torch.tensor([request.prompt.token_ids] * len(request.seeds), device=policy.device)
        draws = torch.from_numpy(np.stack([uniforms(seed, tokens) for seed in request.seeds])).to(
            policy.device
        )
        picker = _SeededDraw(draws, sampling)
        eos = sorted(policy.eos_ids)
        out: Any = (
            policy.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=tokens,
                eos_token_id=eos,
                pad_token_id=policy.pad_id,
                logits_processor=LogitsProcessorList([picker]),
            )[:, prompt.shape[1] :]
            .cpu()
            .numpy()
        )
        logp_BT = torch.stack(picker.logps, dim=1).cpu().numpy()
        answers = []
        for ids, logps in zip(out, logp_BT, strict=True):
            ends = np.flatnonzero(np.isin(ids, eos))
            length = int(ends[0]) + 1 if len(ends) else len(logps)
            answers.append((ids[:length].astype(np.int32), logps[:length].astype(np.float32)))
        return answers


def _empty() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.zeros(0, np.int32), np.zeros(0, np.float32)
