"""The layers of Llama-like decoders with their derivatives written down: the library's values, in fewer passes over memory.

In: hidden states of a pack, one row a token. Out: the next layer's, and in the backward pass the weights' gradients, added where they
belong. Attention itself stays with torch and lies between two functions: one that asks (norm, queries, keys, values, rotation), one that
answers (output, norm, gated MLP). What is cheap to compute again is not kept: a layer keeps half of what the library's keeps.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import Linear, functional

MODELS = ("llama", "qwen2", "qwen3", "mistral")


class Places(Protocol):
    """Where the rows of a pack go for attention, and where they come from (see `packing.Pack`)."""

    @property
    def spread_S(self) -> Tensor: ...
    @property
    def gather_T(self) -> Tensor: ...


class Attend(Protocol):
    """(S, heads, E) queries, (S, key heads, E) keys and values -> what each block of rows saw, (rows, heads, E) in their order."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, /, *, scaling: float) -> list[Tensor]: ...


class Turn(NamedTuple):
    """The rotation of each token's queries and keys: (T, 1, E / 2)."""

    cos: Tensor
    sin: Tensor


def attention_kinds(text: Any) -> set[str]:
    """The kinds of attention among a decoder's layers."""
    named = set(getattr(text, "layer_types", None) or [])
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return named or ({"sliding_attention"} if slides else {"full_attention"})


def is_plain_decoder(model: Any, inner: Any) -> bool:
    """Whether a network's layers are of the known shape: RMS norms, rotary attention over everything before, a gated SiLU MLP."""
    return bool(
        model.config.model_type in MODELS
        and hasattr(inner, "layers")
        and attention_kinds(model.config) == {"full_attention"}
        and model.config.hidden_act == "silu"
    )


def can_run(model: Any, inner: Any) -> bool:
    """Whether the functions here stand for the library's forward now: plain layers in float32 or wider, without adapters, either all
    trained or none, no recomputing of activations, no lower precision around them."""
    if not is_plain_decoder(model, inner) or (inner.gradient_checkpointing and inner.training):
        return False
    wanted = torch.is_grad_enabled()
    return (
        not torch.is_autocast_enabled(inner.embed_tokens.weight.device.type)
        and all(
            weight.dtype in (torch.float32, torch.float64) and (weight.requires_grad or not wanted)
            for weight in inner.parameters()
        )
        and not any(hasattr(module, "get_base_layer") for module in inner.modules())
    )


def forward(inner: Any, x_TD: Tensor, positions_T: Tensor, places: Places, attend: Attend) -> Tensor:
    """(T, D) hidden states after all layers and the final norm."""
    cos_1TE, sin_1TE = inner.rotary_emb(x_TD, positions_T[None])
    half = cos_1TE.shape[-1] // 2
    turn = Turn(cos_1TE[0, :, None, :half].contiguous(), sin_1TE[0, :, None, :half].contiguous())
    for layer in inner.layers:
        q_SHE, k_SJE, v_SJE = _Ask.apply(x_TD, layer, turn, places)  # type: ignore[no-untyped-call]
        seen = attend(q_SHE, k_SJE, v_SJE, scaling=layer.self_attn.scaling)
        x_TD = _Answer.apply(x_TD, layer, places.gather_T, *seen)  # type: ignore[no-untyped-call]
    normed: Tensor = inner.norm(x_TD)
    return normed


class _Ask(torch.autograd.Function):
    """(T, D) -> queries, keys and values at their places for attention."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, turn: Turn, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        mine = layer.self_attn
        scale = _scale(x, layer.input_layernorm)
        inputs = (x * scale).mul_(layer.input_layernorm.weight)
        raw = functional.linear(inputs, *_asking(layer)).view(len(x), -1, mine.head_dim)
        heads, rotated = _heads(mine)
        qk, head_scale = raw[:, :rotated], None
        if hasattr(mine, "q_norm"):
            head_scale = _scale(qk, mine.q_norm)
            qk = (qk * head_scale).mul_(_head_gain(mine))
        qk = _rotate(qk, turn.cos, turn.sin)
        ctx.save_for_backward(x, scale, raw if head_scale is not None else None, head_scale)
        ctx.layer, ctx.turn, ctx.places = layer, turn, places
        return tuple(
            part.index_select(0, places.spread_S) for part in (qk[:, :heads], qk[:, heads:], raw[:, rotated:])
        )  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *pulled: Tensor) -> tuple[Tensor, None, None, None]:
        x, scale, raw, head_scale = ctx.saved_tensors
        layer, mine = ctx.layer, ctx.layer.self_attn
        heads, rotated = _heads(mine)
        # Padding rows get no gradient, nobody reads them: the transpose of spreading is plain gathering.
        d_qkv = torch.cat([part.index_select(0, ctx.places.gather_T) for part in pulled], dim=1)
        d_qk = _rotate(d_qkv[:, :rotated], ctx.turn.cos, -ctx.turn.sin)
        if head_scale is not None:
            normed = raw[:, :rotated] * head_scale
            _add(mine.q_norm.weight, d_qk[:, :heads], normed[:, :heads])
            _add(mine.k_norm.weight, d_qk[:, heads:], normed[:, heads:])
            d_qk = _through_norm(d_qk.mul_(_head_gain(mine)), normed, head_scale)
        d_qkv[:, :rotated] = d_qk
        d_qkv = d_qkv.flatten(1)
        normed = x * scale
        inputs = normed * layer.input_layernorm.weight
        weight, _ = _asking(layer)
        _add_linear((mine.q_proj, mine.k_proj, mine.v_proj), d_qkv, inputs)
        return _to_residual(layer.input_layernorm, d_qkv @ weight, normed, scale), None, None, None


class _Answer(torch.autograd.Function):
    """(T, D) and what attention saw -> the layer's (T, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, gather_T: Tensor, *seen: Tensor) -> Tensor:
        out, mlp = layer.self_attn.o_proj, layer.mlp
        middle = torch.addmm(x, _gathered(seen, gather_T), out.weight.T)
        if out.bias is not None:
            middle += out.bias
        scale = _scale(middle, layer.post_attention_layernorm)
        normed = (middle * scale).mul_(layer.post_attention_layernorm.weight)
        gate, up = (
            functional.linear(normed, part.weight, part.bias) for part in (mlp.gate_proj, mlp.up_proj)
        )
        ctx.save_for_backward(middle, scale, gate, up, gather_T, *seen)
        ctx.layer = layer
        after = torch.addmm(middle, functional.silu(gate).mul_(up), mlp.down_proj.weight.T)
        return after if mlp.down_proj.bias is None else after.add_(mlp.down_proj.bias)

    @staticmethod
    def backward(ctx: Any, d_after: Tensor) -> tuple[Tensor | None, ...]:
        middle, scale, gate, up, gather_T, *seen = ctx.saved_tensors
        layer, out, mlp = ctx.layer, ctx.layer.self_attn.o_proj, ctx.layer.mlp
        silu = functional.silu(gate)
        _add_linear((mlp.down_proj,), d_after, silu * up)
        d_product = d_after @ mlp.down_proj.weight
        d_up = silu.mul_(d_product)
        d_gate = torch.ops.aten.silu_backward(d_product.mul_(up), gate)
        normed = middle * scale
        inputs = normed * layer.post_attention_layernorm.weight
        _add_linear((mlp.gate_proj,), d_gate, inputs)
        _add_linear((mlp.up_proj,), d_up, inputs)
        d_inputs = torch.addmm(d_gate @ mlp.gate_proj.weight, d_up, mlp.up_proj.weight)
        d_middle = _to_residual(layer.post_attention_layernorm, d_inputs, normed, scale).add_(d_after)
        _add_linear((out,), d_middle, _gathered(seen, gather_T))
        d_seen = d_middle.new_zeros((sum(len(part) for part in seen), out.in_features))
        d_seen.index_copy_(0, gather_T, d_middle @ out.weight)
        d_seen = d_seen.view(len(d_seen), *seen[0].shape[1:])
        return d_middle, None, None, *torch.split(d_seen, [len(part) for part in seen])


def _asking(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Queries, keys and values as one product."""
    parts = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return torch.cat([part.weight for part in parts]), bias


def _heads(attention: Any) -> tuple[int, int]:
    """Heads of queries, and of queries and keys together."""
    heads, keys = (part.out_features // attention.head_dim for part in (attention.q_proj, attention.k_proj))
    return heads, heads + keys


def _head_gain(attention: Any) -> Tensor:
    """(heads, E) gains of the norms on queries and keys."""
    heads, rotated = _heads(attention)
    return torch.cat(
        [attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(rotated - heads, -1)]
    )


def _scale(x: Tensor, norm: Any) -> Tensor:
    """1 / root mean square of the last axis."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (i, i + half) of a head turned by its angle."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    new_first, new_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin)
    return turned


def _gathered(seen: Any, gather_T: Tensor) -> Tensor:
    return torch.cat(seen).flatten(1).index_select(0, gather_T)


def _through_norm(pulled: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """d(loss)/dx of x scaled to root mean square 1, in place of both arguments."""
    along = torch.linalg.vecdot(pulled, normed)[..., None] / normed.shape[-1]
    return pulled.sub_(normed.mul_(along)).mul_(scale)


def _to_residual(norm: Any, d_inputs: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """Through a norm with its gain; in place of `d_inputs` and `normed`."""
    _add(norm.weight, d_inputs, normed)
    return _through_norm(d_inputs.mul_(norm.weight), normed, scale)


def _add(gain: Tensor, pulled: Tensor, normed: Tensor) -> None:
    """The gradient of a norm's gain."""
    gradient_of(gain).add_((pulled * normed).flatten(0, -2).sum(0))


def _add_linear(parts: tuple[Linear, ...], pulled: Tensor, inputs: Tensor) -> None:
    """The gradients of linear layers that read the same inputs; `pulled` holds theirs side by side."""
    for part, own in zip(
        parts, torch.split(pulled, [part.out_features for part in parts], dim=1), strict=True
    ):
        gradient_of(part.weight).addmm_(own.T, inputs)
        if part.bias is not None:
            gradient_of(part.bias).add_(own.sum(0))


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient to add to, made where there is none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
