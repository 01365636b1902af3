"""Group after group in one row of tokens: a prompt is read once, and each of its answers attends to it and to itself.

In: samples as token ids. Out: packs, and the attention that the library calls for them. Linear layers see no padding at all;
attention pads answers within their group, and no mask over a whole group ever exists.
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
RATIO = 1.5
"""Answers of one prompt attend together while the longest has at most this many times the tokens of the shortest."""
TOLERANCE = 1e-3
"""How far a packed hidden state may be from the plain one, relative to the largest, before packing is left alone."""


class Block(NamedTuple):
    """Answers to one prompt that are of similar length, inside a pack."""

    prompt: int
    """Number of the prompt."""
    width: int
    """Tokens of the prompt."""
    answers: int
    longest: int


class Pack(NamedTuple):
    """One forward pass: T tokens, of which N are predicted; S tokens once prompts and padded answers are apart."""

    samples: NDArray[np.int64]
    """Which samples, in the order of the predicted tokens."""
    lengths: NDArray[np.int64]
    """Answer tokens of each."""
    blocks: tuple[Block, ...]
    ids_T: Tensor
    positions_T: Tensor
    source_N: Tensor
    """The place whose hidden state predicts token n."""
    target_N: Tensor
    spread_S: Tensor
    """All prompts, then all padded answers, as places; a padding token copies its answer's first."""
    gather_T: Tensor
    """For each token its row among those."""
    masks: dict[int | None, Tensor]
    """The causal mask of the longest prompt and answer, by window; blocks take their corner of it."""

    @property
    def sizes(self) -> list[int]:
        """Rows of each prompt, then of each block's padded answers."""
        widths = {block.prompt: block.width for block in self.blocks}
        return [*widths.values(), *(block.answers * block.longest for block in self.blocks)]


def split_into_packs(
    batch: Sequences, samples: NDArray[np.int64], max_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Samples of each pack. Answers to one prompt stay together, longest first; a group beyond `max_tokens` is split."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for sample in samples.tolist():
        by_prompt.setdefault(batch.prompts[sample], []).append(sample)
    taken: list[int] = []
    tokens = 0
    for prompt, members in by_prompt.items():
        whole = len(prompt) + sum(len(batch.completions[i]) for i in members)
        if taken and tokens + whole > max_tokens:
            yield np.array(taken)
            taken, tokens = [], 0
        members.sort(key=lambda i: -len(batch.completions[i]))
        if whole <= max_tokens:
            taken, tokens = taken + members, tokens + whole
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
    """Lay these samples out; those with one prompt follow each other."""
    by_prompt = [
        (prompt, [batch.completions[i] for i in members])
        for prompt, members in groupby(samples.tolist(), key=lambda i: batch.prompts[i])
    ]
    blocks: list[Block] = []
    ids, positions, source, target = [], [], [], []
    prompts, answers, gather = [], [], []
    place, prompt_row, answer_row = 0, 0, sum(len(prompt) for prompt, _ in by_prompt)
    for number, (prompt, members) in enumerate(by_prompt):
        width = len(prompt)
        ids.append(np.array(prompt))
        positions.append(np.arange(width))
        prompts.append(np.arange(place, place + width))
        gather.append(np.arange(prompt_row, prompt_row + width))
        last = place + width - 1
        place, prompt_row = place + width, prompt_row + width
        for longest, run in _runs(members):
            blocks.append(Block(number, width, len(run), longest))
            for member in run:
                own = np.arange(place, place + len(member))
                ids.append(member)
                positions.append(np.arange(width, width + len(member)))
                source.append(np.concatenate([[last], own])[: len(member)])
                target.append(member)
                answers.append(np.concatenate([own, np.full(longest - len(member), place)]))
                gather.append(np.arange(answer_row, answer_row + len(member)))
                place, answer_row = place + len(member), answer_row + longest

    def tensor(parts: list[Any]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    return Pack(
        samples=samples,
        lengths=np.array([len(batch.completions[i]) for i in samples], dtype=np.int64),
        blocks=tuple(blocks),
        ids_T=tensor(ids),
        positions_T=tensor(positions),
        source_N=tensor(source),
        target_N=tensor(target),
        spread_S=tensor(prompts + answers),
        gather_T=tensor(gather),
        masks={},
    )


def _runs(members: list[NDArray[np.int32]]) -> Iterator[tuple[int, list[NDArray[np.int32]]]]:
    """Neighbours of similar length, with the longest length among them; in order."""
    run: list[NDArray[np.int32]] = []
    for member in members:
        lengths = [len(other) for other in (*run, member)]
        if run and max(lengths) > RATIO * min(lengths):
            yield max(lengths[:-1]), run
            run = []
        run.append(member)
    if run:
        yield max(len(member) for member in run), run


def hidden_states(model: Any, pack: Pack, embeddings_TD: Tensor | None = None) -> Tensor:
    """(N, D) hidden states that predict the answers' tokens. `embeddings_TD`: in place of looking the ids up."""
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
    """The library's attention, except for a pack: there (1, heads, T, dim) queries see their own prompt and answer only."""
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
    seen = attend(pack, q, k, v, scaling=scaling, window=sliding_window)
    return _Gather.apply(torch.cat(seen), pack.gather_T)[None], None  # type: ignore[no-untyped-call]


def attend(
    pack: Pack,
    query_SHE: Tensor,
    key_SJE: Tensor,
    value_SJE: Tensor,
    *,
    scaling: float | None = None,
    window: int | None = None,
) -> list[Tensor]:
    """What the rows of each prompt, then of each block of answers see: (rows, heads, E), in the order of `pack.sizes`."""
    q, k, v = (torch.split(heads, pack.sizes) for heads in (query_SHE, key_SJE, value_SJE))
    look = partial(
        functional.scaled_dot_product_attention,
        scale=scaling,
        enable_gqa=query_SHE.shape[1] != key_SJE.shape[1],
    )
    widths = {block.prompt: block.width for block in pack.blocks}
    seen = []
    for number, width in widths.items():
        q_1HPE, k_1HPE, v_1HPE = (part[number].transpose(0, 1)[None] for part in (q, k, v))
        if window is not None and window < width:
            out = look(q_1HPE, k_1HPE, v_1HPE, _mask(pack, 0, width, window, query_SHE))
        else:
            out = look(q_1HPE, k_1HPE, v_1HPE, is_causal=True)
        seen.append(out[0].transpose(0, 1))
    for number, block in enumerate(pack.blocks, start=len(widths)):
        shape = (block.answers, block.longest)
        k_RHKE, v_RHKE = (
            torch.cat(
                [
                    part[block.prompt].expand(block.answers, *part[block.prompt].shape),
                    part[number].view(*shape, *part[number].shape[1:]),
                ],
                dim=1,
            ).transpose(1, 2)
            for part in (k, v)
        )
        q_RHLE = q[number].view(*shape, *q[number].shape[1:]).transpose(1, 2)
        mask = _mask(pack, block.width, block.longest, window, query_SHE)
        seen.append(look(q_RHLE, k_RHKE, v_RHKE, mask).transpose(1, 2).flatten(0, 1))
    return seen


def _mask(pack: Pack, before: int, width: int, window: int | None, like: Tensor) -> Tensor:
    """(width, before + width), additive: each of the last `width` places sees all before it, or its window."""
    most, longest = (
        max(sizes) for sizes in zip(*((b.width, max(b.longest, b.width)) for b in pack.blocks), strict=True)
    )
    if window not in pack.masks:
        distance = torch.arange(most, most + longest)[:, None] - torch.arange(most + longest)[None]
        seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        pack.masks[window] = (
            torch.zeros(seen.shape, dtype=like.dtype)
            .masked_fill(~seen, torch.finfo(like.dtype).min)
            .to(like.device)
        )
    return pack.masks[window][:width, most - before : most + width]


class _Spread(torch.autograd.Function):
    """Rows of x by `spread`. Padding rows get no gradient (nobody reads them), so its transpose is a plain `gather`."""

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
        whole = gradient.new_zeros((ctx.rows, *gradient.shape[1:]))
        return whole.index_copy_(0, ctx.saved_tensors[0], gradient), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


@torch.no_grad()
def enable(model: Any) -> str | None:
    """Give a model the packed attention, and try it: None where packed hidden states equal plain ones, else why they do not."""
    if not has_plain_head(model.config):
        return "its logits are capped or scaled after the output head"
    if model.config._attn_implementation != "sdpa":
        return f"its attention is {model.config._attn_implementation}"
    inner = backbone(model)
    random = np.random.default_rng(0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None) or 0
    # Long enough to leave a window of the usual small test models; a real model's window is thousands of tokens.
    lengths = [(5, 3), (5, 1), (7, 4)] + ([(window + 2, 3)] if 0 < window <= 64 else [])
    draws = [
        (
            tuple(random.integers(vocabulary, size=p).tolist()),
            random.integers(vocabulary, size=c).astype(np.int32),
        )
        for p, c in lengths
    ]
    draws[1] = (draws[0][0], draws[1][1])
    batch = Sequences([p for p, _ in draws], [c for _, c in draws])
    device = next(model.parameters()).device
    plain = torch.cat(
        [
            inner(
                input_ids=torch.tensor([[*p, *c.tolist()]], device=device), use_cache=False
            ).last_hidden_state[0, len(p) - 1 : len(p) + len(c) - 1]
            for p, c in draws
        ]
    )
    try:
        model.set_attn_implementation(ATTENTION)
        packed = hidden_states(model, build_pack(batch, np.arange(len(draws)), device))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        model.set_attn_implementation("sdpa")
        return f"it does not take packed prompts ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
    apart = float((packed.float() - plain.float()).abs().max() / plain.float().abs().max())
    limit = TOLERANCE if plain.dtype == torch.float32 else 0.05
    if not apart < limit:
        model.set_attn_implementation("sdpa")
        return f"packed prompts change its hidden states by {apart:.1e}"
    return None
