"""Packed forward passes: groups one after another in a row of tokens, where each prompt is read once for all its completions.

In: samples as token ids. Out: packs, and the attention that the library calls for them: a completion attends to its prompt and to itself.
Linear layers see no padding; attention pads completions within a block of similar lengths, and no mask over a whole group ever exists.
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from workbench.models.fast import layers
from workbench.models.logprobs import Sequences, backbone, has_plain_head

ATTENTION = "workbench"
"""Name under which the library finds `attention`; for anything but a pack it is the library's own."""
LENGTH_RATIO = 1.5
"""Completions of one prompt attend in one block while the longest has at most this many times the tokens of the shortest."""
TOLERANCE, TOLERANCE_HALF = 1e-3, 0.05
"""How far a packed hidden state may be from the plain one, relative to the largest, for packing to be used: float32, lower precision."""


class Block(NamedTuple):
    """Completions of one prompt that are of similar length, inside a pack."""

    prompt: int
    """Number of the prompt in the pack."""
    width: int
    """Tokens of the prompt."""
    completions: int
    longest: int
    """Tokens of the longest completion."""


class Pack(NamedTuple):
    """One forward pass: a row of T tokens, of which N are predicted; S rows for attention, where prompts and padded completions lie apart."""

    blocks: tuple[Block, ...]
    ids_T: Tensor
    positions_T: Tensor
    source_N: Tensor
    """The token of the row whose hidden state predicts token n."""
    target_N: Tensor
    spread_S: Tensor
    """Tokens of the row as attention sees them: all prompts, then all padded completions; a padding token copies its completion's first."""
    gather_T: Tensor
    """For each token of the row its place among those."""
    masks: dict[int | None, Tensor]
    """The causal mask of the longest prompt and completion, by window; blocks take their corner of it."""

    @property
    def sizes(self) -> list[int]:
        """Rows of each prompt, then of each block's padded completions."""
        widths = {block.prompt: block.width for block in self.blocks}
        return [*widths.values(), *(block.completions * block.longest for block in self.blocks)]


def split_into_packs(
    batch: Sequences, samples: NDArray[np.int64], max_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Samples of each pack. Completions of one prompt stay together, longest first; a group beyond `max_tokens` is split."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for sample in samples.tolist():
        by_prompt.setdefault(batch.prompts[sample], []).append(sample)
    taken: list[int] = []
    tokens = 0
    for prompt, members in by_prompt.items():
        group_tokens = len(prompt) + sum(len(batch.completions[i]) for i in members)
        if taken and tokens + group_tokens > max_tokens:
            yield np.array(taken)
            taken, tokens = [], 0
        members.sort(key=lambda i: -len(batch.completions[i]))
        if group_tokens <= max_tokens:
            taken, tokens = taken + members, tokens + group_tokens
            continue
        for sample in members:
            size = len(batch.completions[sample])
            if taken and tokens + size > max_tokens:
                yield np.array(taken)
                taken = []
            tokens = tokens + size if taken else len(prompt) + size
            taken.append(sample)
    if taken:
        yield np.array(taken)


def build_pack(batch: Sequences, samples: NDArray[np.int64], device: torch.device) -> Pack:
    """A pack of these samples in their order; neighbours with the same prompt share one reading of it."""
    by_prompt = [
        (prompt, [batch.completions[i] for i in members])
        for prompt, members in groupby(samples.tolist(), key=lambda i: batch.prompts[i])
    ]
    blocks: list[Block] = []
    ids, positions, source, target = [], [], [], []
    prompts, completions, gather = [], [], []
    place, prompt_row, completion_row = 0, 0, sum(len(prompt) for prompt, _ in by_prompt)
    for number, (prompt, members) in enumerate(by_prompt):
        width = len(prompt)
        ids.append(np.array(prompt))
        positions.append(np.arange(width))
        prompts.append(np.arange(place, place + width))
        gather.append(np.arange(prompt_row, prompt_row + width))
        last = place + width - 1
        place, prompt_row = place + width, prompt_row + width
        for longest, block in _blocks_of(members):
            blocks.append(Block(number, width, len(block), longest))
            for member in block:
                own = np.arange(place, place + len(member))
                ids.append(member)
                positions.append(np.arange(width, width + len(member)))
                source.append(np.concatenate([[last], own])[: len(member)])
                target.append(member)
                completions.append(np.concatenate([own, np.full(longest - len(member), place)]))
                gather.append(np.arange(completion_row, completion_row + len(member)))
                place, completion_row = place + len(member), completion_row + longest

    def tensor(parts: list[Any]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    return Pack(
        blocks=tuple(blocks),
        ids_T=tensor(ids),
        positions_T=tensor(positions),
        source_N=tensor(source),
        target_N=tensor(target),
        spread_S=tensor(prompts + completions),
        gather_T=tensor(gather),
        masks={},
    )


def _blocks_of(members: list[NDArray[np.int32]]) -> Iterator[tuple[int, list[NDArray[np.int32]]]]:
    """(longest length, members) of each block: neighbours of similar length, in order."""
    block: list[NDArray[np.int32]] = []
    for member in members:
        lengths = [len(other) for other in (*block, member)]
        if block and max(lengths) > LENGTH_RATIO * min(lengths):
            yield max(lengths[:-1]), block
            block = []
        block.append(member)
    if block:
        yield max(len(member) for member in block), block


def hidden_states(model: Any, pack: Pack, embeddings_TD: Tensor | None = None) -> Tensor:
    """(N, D) hidden states that predict the completions' tokens. `embeddings_TD`: in place of looking the ids up."""
    inner = backbone(model)
    if layers.can_run(model, inner):
        x_TD = inner.embed_tokens(pack.ids_T) if embeddings_TD is None else embeddings_TD
        out_TD = layers.forward(inner, x_TD, pack.positions_T, pack, partial(attend, pack))
        return out_TD.index_select(0, pack.source_N)
    given = (
        {"input_ids": pack.ids_T[None]} if embeddings_TD is None else {"inputs_embeds": embeddings_TD[None]}
    )
    out_1TD = inner(
        **given,
        # Never read, but without one the library would build a mask over all tokens.
        attention_mask=torch.zeros(1, 1, 1, 1, device=pack.ids_T.device),
        position_ids=pack.positions_T[None],
        use_cache=False,
        pack=pack,
    ).last_hidden_state
    predicting: Tensor = out_1TD[0].index_select(0, pack.source_N)
    return predicting


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    pack: Pack | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The library's attention, except for a pack: there (1, heads, T, dim) queries see their own prompt and completion only."""
    if pack is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            sliding_window=sliding_window,
            **others,
        )
    if others.get("softcap") is not None or others.get("s_aux") is not None:
        raise NotImplementedError("soft-capped attention and attention sinks")
    q, k, v = (
        _Spread.apply(heads.transpose(1, 2)[0], pack.spread_S, pack.gather_T)  # type: ignore[no-untyped-call]
        for heads in (query, key, value)
    )
    attended = attend(pack, q, k, v, scaling=scaling, window=sliding_window)
    return _Gather.apply(torch.cat(attended), pack.gather_T)[None], None  # type: ignore[no-untyped-call]


def attend(
    pack: Pack,
    query_SHE: Tensor,
    key_SJE: Tensor,
    value_SJE: Tensor,
    *,
    scaling: float | None = None,
    window: int | None = None,
) -> list[Tensor]:
    """softmax(q k^T scaling) v for the rows of each prompt, then of each block of completions: (rows, heads, E), in the order of
    `pack.sizes`. A prompt's rows see the prompt up to themselves; a completion's rows see its prompt and the completion up to themselves."""
    q, k, v = (torch.split(heads, pack.sizes) for heads in (query_SHE, key_SJE, value_SJE))
    scaled_attention = partial(
        functional.scaled_dot_product_attention,
        scale=scaling,
        enable_gqa=query_SHE.shape[1] != key_SJE.shape[1],
    )
    widths = {block.prompt: block.width for block in pack.blocks}
    attended = []
    for number, width in widths.items():
        q_1HPE, k_1HPE, v_1HPE = (part[number].transpose(0, 1)[None] for part in (q, k, v))
        if window is not None and window < width:
            out = scaled_attention(q_1HPE, k_1HPE, v_1HPE, _mask(pack, 0, width, window, query_SHE))
        else:
            out = scaled_attention(q_1HPE, k_1HPE, v_1HPE, is_causal=True)
        attended.append(out[0].transpose(0, 1))
    for number, block in enumerate(pack.blocks, start=len(widths)):
        shape = (block.completions, block.longest)
        k_RHKE, v_RHKE = (
            torch.cat(
                [
                    part[block.prompt].expand(block.completions, *part[block.prompt].shape),
                    part[number].view(*shape, *part[number].shape[1:]),
                ],
                dim=1,
            ).transpose(1, 2)
            for part in (k, v)
        )
        q_RHLE = q[number].view(*shape, *q[number].shape[1:]).transpose(1, 2)
        mask = _mask(pack, block.width, block.longest, window, query_SHE)
        attended.append(scaled_attention(q_RHLE, k_RHKE, v_RHKE, mask).transpose(1, 2).flatten(0, 1))
    return attended


def _mask(pack: Pack, before: int, width: int, window: int | None, like: Tensor) -> Tensor:
    """(width, before + width), additive: each of the last `width` tokens sees itself and all before it, or its window of them."""
    most, longest = (
        max(sizes) for sizes in zip(*((b.width, max(b.longest, b.width)) for b in pack.blocks), strict=True)
    )
    if window not in pack.masks:
        distance = torch.arange(most, most + longest)[:, None] - torch.arange(most + longest)[None]
        visible = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        pack.masks[window] = (
            torch.zeros(visible.shape, dtype=like.dtype)
            .masked_fill(~visible, torch.finfo(like.dtype).min)
            .to(like.device)
        )
    return pack.masks[window][:width, most - before : most + width]


class _Spread(torch.autograd.Function):
    """Rows of x by `spread`. No output depends on padding rows, so they get no gradient and the transpose is a plain `gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spread_S: Tensor, gather_T: Tensor) -> Tensor:
        ctx.save_for_backward(gather_T)
        return x.index_select(0, spread_S)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """Rows of x by `gather`, each at most once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gather_T: Tensor) -> Tensor:
        ctx.save_for_backward(gather_T)
        ctx.rows = x.shape[0]
        return x.index_select(0, gather_T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        spread = gradient.new_zeros((ctx.rows, *gradient.shape[1:]))
        return spread.index_copy_(0, ctx.saved_tensors[0], gradient), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


@torch.no_grad()
def enable(model: Any) -> str | None:
    """Give a model the packed attention, and try it: None where packed hidden states equal plain ones, else the reason why the model
    keeps its own attention."""
    if not has_plain_head(model):
        return "its logits are not just its output head on its last hidden state (they are capped or scaled)"
    if model.config._attn_implementation != "sdpa":
        return f"its attention is {model.config._attn_implementation}"
    inner = backbone(model)
    random = np.random.default_rng(0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None) or 0
    # Long enough to leave a window of the usual small test models; a real model's window is thousands of tokens.
    lengths = [(5, 3), (5, 1), (7, 4)] + ([(window + 2, 3)] if 0 < window <= 64 else [])
    samples = [
        (
            tuple(random.integers(vocabulary, size=p).tolist()),
            random.integers(vocabulary, size=c).astype(np.int32),
        )
        for p, c in lengths
    ]
    samples[1] = (samples[0][0], samples[1][1])
    batch = Sequences([p for p, _ in samples], [c for _, c in samples])
    device = next(model.parameters()).device
    plain = torch.cat(
        [
            inner(
                input_ids=torch.tensor([[*p, *c.tolist()]], device=device), use_cache=False
            ).last_hidden_state[0, len(p) - 1 : len(p) + len(c) - 1]
            for p, c in samples
        ]
    )
    try:
        model.set_attn_implementation(ATTENTION)
        packed = hidden_states(model, build_pack(batch, np.arange(len(samples)), device))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        model.set_attn_implementation("sdpa")
        return f"it does not take packed prompts ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
    apart = float((packed.float() - plain.float()).abs().max() / plain.float().abs().max())
    limit = TOLERANCE if plain.dtype == torch.float32 else TOLERANCE_HALF
    if not apart < limit:
        model.set_attn_implementation("sdpa")
        return f"packed prompts change its hidden states by {apart:.1e}"
    return None
