"""The slow engine that the local one is checked against: the library's own `generate`, one prompt at a time, with our seeds and our draw."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from workbench.core.types import Group, Request, Sampling
from workbench.rollouts.engine import (
    Completion,
    OnGroupDone,
    PolicyEngine,
    Progress,
    draw,
    max_lengths,
    uniforms,
)


class _SeededDraw(LogitsProcessor):  # type: ignore[misc]
    """Turns `generate`'s greedy choice into our draw: all mass goes to the token that the sample's own stream picks."""

    def __init__(self, uniform_BT: Tensor, sampling: Sampling) -> None:
        self.uniform_BT, self.sampling = uniform_BT, sampling
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token_B, logp_B = draw(scores, self.uniform_BT[:, len(self.logps)], self.sampling)
        self.logps.append(logp_B)
        return torch.full_like(scores, float("-inf")).scatter(1, token_B[:, None], 0.0)


class TransformersEngine(PolicyEngine):
    """Samples through `model.generate`: every architecture the library supports; each sample reads its prompt, and rows that have
    ended stay in the batch."""

    name = "transformers"

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """See `Engine.generate`."""
        completions: list[Completion] = []
        total = sum(len(request.seeds) for request in requests)
        limits = max_lengths(requests, sampling, self.policy)
        for place, (request, limit) in enumerate(zip(requests, limits, strict=True)):
            own = self._sample(request, limit, sampling) if limit > 0 else [_empty() for _ in request.seeds]
            completions += own
            if on_group_done:
                on_group_done(place, *self._groups([request], own))
            if progress:
                progress(len(completions), total)
        return self._groups(requests, completions)

    def _sample(self, request: Request, limit: int, sampling: Sampling) -> list[Completion]:
        policy = self.policy
        prompt_BT = torch.tensor([request.prompt.token_ids] * len(request.seeds), device=policy.device)
        draws = np.stack([uniforms(seed, limit) for seed in request.seeds])
        seeded_draw = _SeededDraw(torch.from_numpy(draws).to(policy.device), sampling)
        eos_ids = sorted(policy.eos_ids)
        with _own_settings(policy.model):
            sequences: Any = policy.model.generate(
                input_ids=prompt_BT,
                attention_mask=torch.ones_like(prompt_BT),
                do_sample=False,
                max_new_tokens=limit,
                eos_token_id=eos_ids,
                pad_token_id=policy.pad_id,
                logits_processor=LogitsProcessorList([seeded_draw]),
            )
        ids_BT = sequences[:, prompt_BT.shape[1] :].cpu().numpy()
        logp_BT = torch.stack(seeded_draw.logps, dim=1).cpu().numpy()
        completions = []
        for ids, logps in zip(ids_BT, logp_BT, strict=True):
            ends = np.flatnonzero(np.isin(ids, eos_ids))
            length = int(ends[0]) + 1 if len(ends) else len(logps)
            completions.append((ids[:length].astype(np.int32), logps[:length].astype(np.float32)))
        return completions


@contextmanager
def _own_settings(model: Any) -> Iterator[None]:
    """The model without its generation_config: `generate` would fill in from it what a run never asked for (repetition penalty, banned
    words, least lengths, beams), and the trainer would know nothing of it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    holders = [part for part in (model, base) if "generation_config" in vars(part)]
    kept = [part.generation_config for part in holders]
    for part in holders:
        part.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for part, own in zip(holders, kept, strict=True):
            part.generation_config = own


def _empty() -> Completion:
    return np.zeros(0, np.int32), np.zeros(0, np.float32)
