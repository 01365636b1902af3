"""Answers in, what a network says about each of their tokens out, without gradient: packed where it can be, padded otherwise."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.core.types import Sampling
from workbench.models.fast import head as fused
from workbench.models.fast import packing
from workbench.models.logprobs import Scored, Sequences, TokenStats, head, micro_batches, token_stats


def packed(model: Any) -> bool:
    """Whether a network reads each prompt once for all its answers (see `packing.prepare`)."""
    return bool(model.config._attn_implementation == packing.ATTENTION) and fused.fusable(head(model))


def parts(
    model: Any, batch: Sequences, samples: NDArray[np.int64], max_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """The micro-batches in which a network reads these samples."""
    if packed(model):
        yield from packing.split(batch, samples, max_tokens)
    else:
        yield from (samples[index] for index in micro_batches(batch.lengths()[samples], max_tokens))


@torch.no_grad()
def stats(
    model: Any,
    batch: Sequences,
    samples: NDArray[np.int64],
    sampling: Sampling,
    pad_id: int,
    *,
    logp_only: bool = False,
) -> TokenStats:
    """One micro-batch, flat: sample after sample."""
    if not packed(model):
        return token_stats(model, batch.take(samples), sampling, pad_id, logp_only=logp_only)
    pack = packing.lay_out(batch, samples, next(model.parameters()).device)
    hidden_ND = packing.hidden(model, pack)
    return fused.look(head(model), hidden_ND, pack.target_N, sampling, logp_only=logp_only)


def score(
    model: Any, batch: Sequences, sampling: Sampling, pad_id: int, max_tokens: int, *, logp_only: bool = False
) -> Scored:
    """Every answer token of many samples, in micro-batches of `max_tokens` tokens."""
    valid_B_T = batch.valid(next(model.parameters()).device)
    out = Scored.empty(valid_B_T)
    for samples in parts(model, batch, np.arange(len(batch.prompts)), max_tokens):
        out.put(samples, valid_B_T, stats(model, batch, samples, sampling, pad_id, logp_only=logp_only))
    return out
