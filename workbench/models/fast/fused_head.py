"""The output head and the loss's gradient through it, a block of tokens at a time: no [tokens, vocabulary] table ever exists.

In: (N, D) hidden states that predict N completion tokens, and a function from log-probabilities to d(loss)/d(log-prob). Out: the
tokens' log-probabilities and entropies, and (N, D) d(loss)/d(hidden); the head's own gradient is added to its parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from workbench.core.types import Sampling
from workbench.models.fast.layers import gradient_of
from workbench.models.logprobs import TokenStats, sampling_mask

CHUNK_LOGITS = 1 << 22
"""Logits of one block: 16 MB in float32. Smaller blocks multiply matrices more slowly, larger ones only need memory."""
_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
LossGradient = Callable[[slice, Tensor], Tensor]
"""(which of the tokens, their log-probabilities) -> d(loss)/d(log-prob) of each."""


class HeadResult(NamedTuple):
    """What one pass through the head and back gives."""

    stats: TokenStats
    hidden_gradient_ND: Tensor
    """d(loss)/d(hidden), in the type of the hidden states."""


class Block(NamedTuple):
    """Probabilities of some tokens. Its buffers are overwritten by the gradient."""

    p_NV: Tensor
    kept_NV: Tensor | None
    entropy_N: Tensor | None
    stats: TokenStats


def is_fusable(head: Any) -> bool:
    """Whether this is a plain linear layer, whose gradient is written down here."""
    return type(head) is torch.nn.Linear


def head_stats(
    head: Any, hidden_ND: Tensor, target_N: Tensor, sampling: Sampling, *, logp_only: bool = False
) -> TokenStats:
    """(N,) log-probability and entropy of each token, without gradient, in the head's own precision whatever the layers had."""
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        return TokenStats.joined(
            [
                _block(head, hidden_ND[part], target_N[part], sampling, logp_only=logp_only).stats
                for part in chunks(head, len(target_N))
            ]
        )


@torch.no_grad()
def stats_and_gradients(
    head: Any,
    hidden_ND: Tensor,
    target_N: Tensor,
    sampling: Sampling,
    loss_gradient: LossGradient,
    *,
    separable: bool,
    entropy_weight_N: Tensor | None = None,
) -> HeadResult:
    """Forward and backward through head and loss: the gradient of loss(log-probs) - sum(entropy_weight x entropy).

    `separable`: d(loss)/d(log-prob) of a token depends on its own log-probability alone, so each block goes forward and back at once
    (three products with the vocabulary). Otherwise all log-probabilities come first and each block is computed twice (four).
    """
    parts = chunks(head, len(target_N))
    if not separable and len(parts) > 1:
        stats = head_stats(head, hidden_ND, target_N, sampling)
        grad_N = loss_gradient(slice(0, len(target_N)), stats.logp_N)

        def loss_gradient(part: slice, logp_N: Tensor) -> Tensor:
            return grad_N[part]

    block_stats, gradients = [], []
    for part in parts:
        block = _block(head, hidden_ND[part], target_N[part], sampling)
        logit_gradient_NV = _logit_gradient(
            block,
            target_N[part],
            loss_gradient(part, block.stats.logp_N),
            None if entropy_weight_N is None else entropy_weight_N[part],
            sampling,
        )
        logit_gradient_NV = logit_gradient_NV.to(head.weight.dtype)
        gradients.append(logit_gradient_NV @ head.weight)
        if head.weight.requires_grad:
            gradient_of(head.weight).addmm_(logit_gradient_NV.T, hidden_ND[part].to(head.weight.dtype))
        if head.bias is not None and head.bias.requires_grad:
            gradient_of(head.bias).add_(logit_gradient_NV.sum(0))
        block_stats.append(block.stats)
        del block, logit_gradient_NV  # a block's buffers make room for the next one's
    return HeadResult(TokenStats.joined(block_stats), torch.cat(gradients).to(hidden_ND.dtype))


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias, without gradient. On a CPU oneDNN's float32 product is a third faster for large vocabularies, slower else."""
    if _ONEDNN and weight.numel() >= 1 << 22 and x.dtype == weight.dtype == torch.float32 and not x.is_cuda:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return functional.linear(x, weight, bias)


def chunks(head: Any, tokens: int) -> list[slice]:
    """Blocks of tokens of about CHUNK_LOGITS logits each, all of one size."""
    count = max(1, -(-tokens * int(head.weight.shape[0]) // CHUNK_LOGITS))
    size = -(-tokens // count)
    return [slice(start, min(start + size, tokens)) for start in range(0, max(1, tokens), max(1, size))]


def _block(
    head: Any, hidden_ND: Tensor, target_N: Tensor, sampling: Sampling, *, logp_only: bool = False
) -> Block:
    scaled_NV = project(hidden_ND.to(head.weight.dtype), head.weight, head.bias)
    scaled_NV = scaled_NV if scaled_NV.dtype == torch.float64 else scaled_NV.float()
    if sampling.temperature not in (0.0, 1.0):
        scaled_NV /= sampling.temperature
    kept_NV = sampling_mask(scaled_NV, sampling)
    if logp_only and kept_NV is None:
        logp_N = scaled_NV.gather(1, target_N[:, None])[:, 0] - scaled_NV.logsumexp(-1)
        return Block(scaled_NV, None, None, TokenStats(logp_N, None, None))
    chosen_N = scaled_NV.gather(1, target_N[:, None])[:, 0]
    top_N1 = scaled_NV.amax(-1, keepdim=True)
    scaled_NV -= top_N1
    p_NV = scaled_NV.exp()
    total_N1 = p_NV.sum(-1, keepdim=True)
    p_NV /= total_N1
    # Mean of the logits under p; logits of -inf have p = 0 and are worth nothing, not NaN.
    mean_N = torch.linalg.vecdot(p_NV, scaled_NV.clamp_(min=-1e4))
    lse_N = total_N1[:, 0].log()
    entropy_N = lse_N - mean_N
    sum_p_squared_N = torch.linalg.vecdot(p_NV, p_NV)
    logp_N = chosen_N - top_N1[:, 0] - lse_N
    if kept_NV is not None:
        kept_NV.scatter_(1, target_N[:, None], True)
        logp_N = logp_N - (p_NV * kept_NV).sum(-1).log()
    return Block(p_NV, kept_NV, entropy_N, TokenStats(logp_N, entropy_N, sum_p_squared_N))


def _logit_gradient(
    block: Block, target_N: Tensor, grad_N: Tensor, entropy_weight_N: Tensor | None, sampling: Sampling
) -> Tensor:
    """(N, V) d(loss)/d(logits) = [grad (one-hot - q) + entropy_weight p (log p + entropy)] / temperature.

    p: softmax of logits / temperature; q: p over the tokens that could be sampled (top-k, top-p, min-p), p itself where all can.
    """
    p_NV = block.p_NV
    scale = 1.0 / (sampling.temperature or 1.0)
    bonus_NV = None
    if entropy_weight_N is not None and block.entropy_N is not None:
        # d(entropy)/d(logit) = -p (log p + entropy)
        bonus_NV = (p_NV.clamp_min(1e-38).log_() + block.entropy_N[:, None]).mul_(p_NV)
        bonus_NV *= entropy_weight_N[:, None] * scale
    if block.kept_NV is not None:
        p_NV *= block.kept_NV
        p_NV /= p_NV.sum(-1, keepdim=True)
    p_NV *= (-scale * grad_N)[:, None]
    p_NV.scatter_add_(1, target_N[:, None], (scale * grad_N)[:, None].to(p_NV.dtype))
    return p_NV if bonus_NV is None else p_NV.add_(bonus_NV)
