"""Completions in, the log-probability (and entropy) of each of their tokens under a network out, without gradient.

Two forward passes that give the same numbers: packed (each prompt read once a group) where the model allows it, padded otherwise.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.core.types import Sampling
from workbench.models.fast import fused_head, packing
from workbench.models.logprobs import (
    PaddedTokenStats,
    Sequences,
    TokenStats,
    microbatches_by_length,
    output_head,
    token_stats,
)


def is_packed(model: Any) -> bool:
    """Whether a network reads each prompt once for all its completions (see `packing.enable`)."""
    return bool(model.config._attn_implementation == packing.ATTENTION) and fused_head.is_fusable(
        output_head(model)
    )


def microbatches(
    model: Any, batch: Sequences, samples: NDArray[np.int64], max_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Indices of each microbatch in which a network reads these samples, `max_tokens` tokens at most."""
    if is_packed(model):
        yield from packing.split_into_packs(batch, samples, max_tokens)
    else:
        yield from (samples[index] for index in microbatches_by_length(batch.lengths()[samples], max_tokens))


@torch.no_grad()
def microbatch_stats(
    model: Any,
    batch: Sequences,
    samples: NDArray[np.int64],
    sampling: Sampling,
    pad_id: int,
    *,
    logp_only: bool = False,
) -> TokenStats:
    """(N,) figures of one microbatch, flat: sample after sample."""
    if not is_packed(model):
        return token_stats(model, batch.take(samples), sampling, pad_id, logp_only=logp_only)
    pack = packing.build_pack(batch, samples, next(model.parameters()).device)
    hidden_ND = packing.hidden_states(model, pack)
    return fused_head.head_stats(output_head(model), hidden_ND, pack.target_N, sampling, logp_only=logp_only)


def completion_stats(
    model: Any, batch: Sequences, sampling: Sampling, pad_id: int, max_tokens: int, *, logp_only: bool = False
) -> PaddedTokenStats:
    """(B, T) figures of all samples, read in microbatches of `max_tokens` tokens."""
    valid_B_T = batch.valid(next(model.parameters()).device)
    out = PaddedTokenStats.empty(valid_B_T)
    for samples in microbatches(model, batch, np.arange(len(batch.prompts)), max_tokens):
        out.write(
            samples, valid_B_T, microbatch_stats(model, batch, samples, sampling, pad_id, logp_only=logp_only)
        )
    return out
