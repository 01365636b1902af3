"""From a batch of sequences to the log-probability and entropy of each completion token.

Only completion positions reach the output head, so no [samples, tokens, vocabulary] block of a whole batch ever exists.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.core.types import Sampling


class Sequences(NamedTuple):
    """Samples as token ids; entry i of both lists is one sample."""

    prompts: list[tuple[int, ...]]
    completions: list[NDArray[np.int32]]

    def lengths(self) -> NDArray[np.int64]:
        """(B,) prompt plus completion tokens."""
        return np.array(
            [len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)], dtype=np.int64
        )

    def take(self, index: NDArray[np.int64]) -> Self:
        """Some of the samples."""
        return type(self)([self.prompts[i] for i in index], [self.completions[i] for i in index])

    def valid(self, device: torch.device) -> Tensor:
        """(B, T) where a completion token is."""
        lengths_B = torch.tensor([len(c) for c in self.completions], device=device)
        return torch.arange(int(lengths_B.max()), device=device)[None, :] < lengths_B[:, None]


class TokenStats(NamedTuple):
    """Per completion token of a microbatch, flat: sample after sample, no padding."""

    logp_N: Tensor
    """log p of the sampled token under the sampling distribution (temperature, top-p/k, min-p)."""
    entropy_N: Tensor | None
    """-sum p log p over the full vocabulary at the sampling temperature, nats. None where only log-probabilities were requested."""
    sum_p_squared_N: Tensor | None
    """sum p^2 over the full vocabulary: |one-hot - p|^2 = 1 - 2 p(token) + sum p^2, the squared norm of d(log p)/d(logits) at temperature 1."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several runs of tokens as one."""
        logp, entropy, square = (
            torch.cat([part for part in column if part is not None]) if column[0] is not None else None
            for column in zip(*parts, strict=True)
        )
        assert logp is not None
        return cls(logp, entropy, square)


def microbatches_by_length(
    lengths_B: NDArray[np.int64], max_tokens: int, ratio: float = 1.35
) -> Iterator[NDArray[np.int64]]:
    """Sample indices in buckets of similar length, longest first: padding would otherwise outweigh the tokens.

    A bucket holds at most `max_tokens` padded tokens (a single longer sample still gets its own) and no sample shorter than
    1 / ratio of its longest.
    """
    order = np.argsort(-lengths_B, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths_B[order[start]])
        limit = max(1, max_tokens // max(1, longest))
        stop = start + 1
        while stop < len(order) and stop - start < limit and lengths_B[order[stop]] * ratio >= longest:
            stop += 1
        yield order[start:stop]
        start = stop


def token_stats(
    model: Any,
    batch: Sequences,
    sampling: Sampling,
    pad_id: int,
    *,
    entropy_gradient: bool = False,
    logp_only: bool = False,
    chunk_logits: int = 1 << 22,
) -> TokenStats:
    """Read the completions of one padded microbatch, with gradient where the caller has it enabled (of the entropy only on request).

    Right padding and a causal mask: a completion token never sees padding, so no attention mask is needed.
    Completion token t of a sample is predicted at position `prompt length + t - 1`.
    """
    device = next(model.parameters()).device
    longest = int(batch.lengths().max())
    ids = np.full((len(batch.prompts), longest), pad_id, dtype=np.int64)
    rows, columns, targets = [], [], []
    for row, (prompt, completion) in enumerate(zip(batch.prompts, batch.completions, strict=True)):
        ids[row, : len(prompt)] = prompt
        ids[row, len(prompt) : len(prompt) + len(completion)] = completion
        rows.append(np.full(len(completion), row))
        columns.append(np.arange(len(prompt) - 1, len(prompt) + len(completion) - 1))
        targets.append(completion)
    input_ids = torch.from_numpy(ids).to(device)
    row_N = torch.from_numpy(np.concatenate(rows)).to(device)
    column_N = torch.from_numpy(np.concatenate(columns)).to(device)
    target_N = torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(device)
    if has_plain_head(model):
        hidden_ND = backbone(model)(input_ids=input_ids, use_cache=False).last_hidden_state[row_N, column_N]
        step = max(1, chunk_logits // int(output_head(model).weight.shape[0]))
        blocks = (
            (output_head(model)(hidden_ND[i : i + step]), target_N[i : i + step])
            for i in range(0, max(1, len(target_N)), step)  # once where every completion is empty
        )
    else:
        blocks = (
            (model(input_ids=input_ids, use_cache=False).logits[row_N, column_N], target_N) for _ in range(1)
        )
    parts = [
        logit_stats(logits, target, sampling, entropy_gradient=entropy_gradient, logp_only=logp_only)
        for logits, target in blocks
    ]
    return TokenStats.joined(parts)


def backbone(model: Any) -> Any:
    """The decoder without its output head (inside a PEFT wrapper too, adapters included)."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()


def output_head(model: Any) -> Any:
    """The output head."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).get_output_embeddings()


def has_plain_head(model: Any) -> bool:
    """Whether logits are just head(hidden): models that cap, scale or shift either side need the full forward. Tried once per network."""
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    if network not in _PLAIN_HEADS:
        _PLAIN_HEADS[network] = _try_head(network)
    return _PLAIN_HEADS[network]


_PLAIN_HEADS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@torch.no_grad()
def _try_head(model: Any) -> bool:
    """Put known numbers of a wide range in the place of what the head gives: they must come out unchanged, and the head must have been
    given the decoder's hidden state."""
    head = output_head(model)
    weight = next(model.parameters())
    rows = int(model.get_input_embeddings().weight.shape[0])
    ids = torch.tensor([[1, 2, 3, 4, 5]], device=weight.device) % rows
    given: list[Tensor] = []
    known: list[Tensor] = []

    def replace(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        given.append(args[0])
        known.append(torch.linspace(-60.0, 60.0, output.shape[-1]).to(output).expand_as(output))
        return known[-1]

    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.autocast(weight.device.type, enabled=False):
            hook = head.register_forward_hook(replace)
            try:
                logits = model(input_ids=ids, use_cache=False).logits
            finally:
                hook.remove()
            hidden = backbone(model)(input_ids=ids, use_cache=False).last_hidden_state
        tolerance = 1e-5 if weight.dtype in (torch.float32, torch.float64) else 1e-2
        return bool(
            len(known) == 1
            and given[0].shape == hidden.shape
            and torch.equal(logits.float(), known[0].float())
            and (given[0] - hidden).abs().max() <= tolerance * hidden.abs().max()
        )
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return False
    finally:
        for module, training in was_training.items():
            module.training = training


def logit_stats(
    logits_NV: Tensor,
    target_N: Tensor,
    sampling: Sampling,
    *,
    entropy_gradient: bool = False,
    logp_only: bool = False,
) -> TokenStats:
    """From (N, V) logits and (N,) sampled tokens: log softmax(logits / temperature)[token] over the tokens that could be sampled, and the
    entropy over all of them. Half precision is widened first; float64 stays."""
    scaled_NV = (logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()) / (
        sampling.temperature or 1.0
    )
    entropy_N = sum_p_squared_N = None
    if not logp_only:
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            full_NV = torch.log_softmax(scaled_NV, dim=-1)
            p_NV = full_NV.exp()
            # 0 * log 0 is 0 here, not NaN: masked logits of -inf occur in real models.
            entropy_N = -(p_NV * full_NV.clamp(min=-1e4)).sum(-1)
            sum_p_squared_N = (p_NV * p_NV).sum(-1)
    kept_NV = sampling_mask(scaled_NV.detach(), sampling)
    if kept_NV is not None:
        # The sampler drew from the kept tokens only, so the trainer's probability is renormalised over them too. The sampled
        # token always counts as kept: rounding may put it just outside here.
        kept_NV.scatter_(1, target_N[:, None], True)
        scaled_NV = scaled_NV.masked_fill(~kept_NV, float("-inf"))
    return TokenStats(
        scaled_NV.gather(1, target_N[:, None])[:, 0] - scaled_NV.logsumexp(-1), entropy_N, sum_p_squared_N
    )


def sampling_mask(scaled_NV: Tensor, sampling: Sampling) -> Tensor | None:
    """(N, V) which tokens top-k, top-p and min-p leave to sample from, given logits / temperature; None where all are."""
    if sampling.top_p >= 1.0 and not sampling.top_k and not sampling.min_p:
        return None
    kept_NV = torch.ones_like(scaled_NV, dtype=torch.bool)
    if sampling.top_k and sampling.top_k < scaled_NV.shape[-1]:
        kept_NV &= scaled_NV >= scaled_NV.topk(sampling.top_k, dim=-1).values[:, -1:]
    if sampling.min_p:
        top_N1 = scaled_NV.max(dim=-1, keepdim=True).values
        kept_NV &= scaled_NV >= top_N1 + float(np.log(sampling.min_p))
    if sampling.top_p < 1.0:
        masked_NV = scaled_NV.masked_fill(~kept_NV, float("-inf"))
        sorted_NV, order_NV = masked_NV.sort(dim=-1, descending=True)
        p_NV = sorted_NV.softmax(-1)
        # Keep the smallest set of likeliest tokens whose mass reaches top_p: a token stays while the mass before it is below.
        within_NV = p_NV.cumsum(-1) - p_NV < sampling.top_p
        kept_NV &= torch.zeros_like(kept_NV).scatter(1, order_NV, within_NV)
    return kept_NV


class PaddedTokenStats(NamedTuple):
    """Per completion token of many samples, padded to (B, T); zero beyond a sample's end."""

    logp_B_T: Tensor
    entropy_B_T: Tensor
    sum_p_squared_B_T: Tensor

    @classmethod
    def empty(cls, valid_B_T: Tensor) -> Self:
        """Room for `write`."""
        return cls(
            *(torch.zeros(valid_B_T.shape, dtype=torch.float32, device=valid_B_T.device) for _ in range(3))
        )

    def write(self, index: NDArray[np.int64], valid_B_T: Tensor, stats: TokenStats) -> None:
        """Write a microbatch's flat figures into rows `index`; what it did not compute stays zero."""
        for table_B_T, flat_N in zip(self, stats, strict=True):
            if flat_N is not None:
                # Under autocast a figure may come in lower precision.
                table_B_T[index] = unflatten(flat_N.detach().to(table_B_T.dtype), valid_B_T[index])


def unflatten(flat_N: Tensor, valid_B_T: Tensor) -> Tensor:
    """(B, T) with the flat values where a token is, zero elsewhere."""
    return torch.zeros(valid_B_T.shape, dtype=flat_N.dtype, device=flat_N.device).masked_scatter(
        valid_B_T, flat_N
    )
