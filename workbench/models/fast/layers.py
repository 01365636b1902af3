"""The layers of Llama-like decoders with their derivatives written down: the library's values, in fewer passes over memory.

In: (T, D) hidden states of a pack, one row a token. Out: those after all layers; in the backward pass the weights' gradients are added to
their parameters. Each layer is two functions around attention, which stays with torch: one before it (norm, queries, keys, values,
rotation) and one after it (output projection, norm, gated MLP). What is cheap to compute again is not kept: half of what the library keeps.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import Linear, functional

MODELS = ("llama", "qwen2", "qwen3", "mistral")
"""Model types whose layers have this shape."""


class RowMaps(Protocol):
    """Where the rows of a pack go for attention, and where they come from (see `packing.Pack`)."""

    @property
    def spread_S(self) -> Tensor: ...
    @property
    def gather_T(self) -> Tensor: ...


class Attention(Protocol):
    """(S, H, E) queries, (S, J, E) keys and values -> the output of each block of rows, (rows, H, E), in their order."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, /, *, scaling: float) -> list[Tensor]: ...


class Rotation(NamedTuple):
    """Rotary position embedding of each token: (T, 1, E / 2) cosines and sines of its angles."""

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


def forward(inner: Any, x_TD: Tensor, positions_T: Tensor, row_maps: RowMaps, attention: Attention) -> Tensor:
    """(T, D) hidden states after all layers and the final norm."""
    cos_1TE, sin_1TE = inner.rotary_emb(x_TD, positions_T[None])
    half = cos_1TE.shape[-1] // 2
    rotation = Rotation(cos_1TE[0, :, None, :half].contiguous(), sin_1TE[0, :, None, :half].contiguous())
    for layer in inner.layers:
        q_SHE, k_SJE, v_SJE = _BeforeAttention.apply(x_TD, layer, rotation, row_maps)  # type: ignore[no-untyped-call]
        attended = attention(q_SHE, k_SJE, v_SJE, scaling=layer.self_attn.scaling)
        x_TD = _AfterAttention.apply(x_TD, layer, row_maps.gather_T, *attended)  # type: ignore[no-untyped-call]
    normed: Tensor = inner.norm(x_TD)
    return normed


class _BeforeAttention(torch.autograd.Function):
    """(T, D) x -> (S, H, E) queries, (S, J, E) keys and values: [q k v] = W_qkv (x r gain), with r = 1 / rms(x); where the model has them,
    norms on each head of q and k; both rotated; rows put at their places for attention."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layer: Any, rotation: Rotation, row_maps: RowMaps
    ) -> tuple[Tensor, Tensor, Tensor]:
        attention = layer.self_attn
        inverse_rms = _inverse_rms(x, layer.input_layernorm)
        inputs = (x * inverse_rms).mul_(layer.input_layernorm.weight)
        raw = functional.linear(inputs, *_qkv_weight(layer)).view(len(x), -1, attention.head_dim)
        heads, rotated = _head_counts(attention)
        qk, head_inverse_rms = raw[:, :rotated], None
        if hasattr(attention, "q_norm"):
            head_inverse_rms = _inverse_rms(qk, attention.q_norm)
            qk = (qk * head_inverse_rms).mul_(_head_gain(attention))
        qk = _rotate(qk, rotation.cos, rotation.sin)
        ctx.save_for_backward(x, inverse_rms, raw if head_inverse_rms is not None else None, head_inverse_rms)
        ctx.layer, ctx.rotation, ctx.row_maps = layer, rotation, row_maps
        return tuple(
            part.index_select(0, row_maps.spread_S)
            for part in (qk[:, :heads], qk[:, heads:], raw[:, rotated:])
        )  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *d_spread: Tensor) -> tuple[Tensor, None, None, None]:
        x, inverse_rms, raw, head_inverse_rms = ctx.saved_tensors
        layer, attention = ctx.layer, ctx.layer.self_attn
        heads, rotated = _head_counts(attention)
        # Padding rows get no gradient, as no output depends on them: the transpose of spreading is plain gathering.
        d_qkv = torch.cat([part.index_select(0, ctx.row_maps.gather_T) for part in d_spread], dim=1)
        d_qk = _rotate(d_qkv[:, :rotated], ctx.rotation.cos, -ctx.rotation.sin)
        if head_inverse_rms is not None:
            normed = raw[:, :rotated] * head_inverse_rms
            _add_gain_gradient(attention.q_norm.weight, d_qk[:, :heads], normed[:, :heads])
            _add_gain_gradient(attention.k_norm.weight, d_qk[:, heads:], normed[:, heads:])
            d_qk = _through_norm(d_qk.mul_(_head_gain(attention)), normed, head_inverse_rms)
        d_qkv[:, :rotated] = d_qk
        d_qkv = d_qkv.flatten(1)
        normed = x * inverse_rms
        inputs = normed * layer.input_layernorm.weight
        weight, _ = _qkv_weight(layer)
        _add_linear_gradients((attention.q_proj, attention.k_proj, attention.v_proj), d_qkv, inputs)
        return (
            _through_norm_with_gain(layer.input_layernorm, d_qkv @ weight, normed, inverse_rms),
            None,
            None,
            None,
        )


class _AfterAttention(torch.autograd.Function):
    """(T, D) x and the output a of attention -> m + W_down (silu(W_gate n) * W_up n), with m = x + W_o a and n = m / rms(m) * gain."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, gather_T: Tensor, *attended: Tensor) -> Tensor:
        out, mlp = layer.self_attn.o_proj, layer.mlp
        middle = torch.addmm(x, _gathered(attended, gather_T), out.weight.T)
        if out.bias is not None:
            middle += out.bias
        inverse_rms = _inverse_rms(middle, layer.post_attention_layernorm)
        normed = (middle * inverse_rms).mul_(layer.post_attention_layernorm.weight)
        gate, up = (
            functional.linear(normed, part.weight, part.bias) for part in (mlp.gate_proj, mlp.up_proj)
        )
        ctx.save_for_backward(middle, inverse_rms, gate, up, gather_T, *attended)
        ctx.layer = layer
        after = torch.addmm(middle, functional.silu(gate).mul_(up), mlp.down_proj.weight.T)
        return after if mlp.down_proj.bias is None else after.add_(mlp.down_proj.bias)

    @staticmethod
    def backward(ctx: Any, d_after: Tensor) -> tuple[Tensor | None, ...]:
        middle, inverse_rms, gate, up, gather_T, *attended = ctx.saved_tensors
        layer, out, mlp = ctx.layer, ctx.layer.self_attn.o_proj, ctx.layer.mlp
        silu = functional.silu(gate)
        _add_linear_gradients((mlp.down_proj,), d_after, silu * up)
        d_product = d_after @ mlp.down_proj.weight
        d_up = silu.mul_(d_product)
        d_gate = torch.ops.aten.silu_backward(d_product.mul_(up), gate)
        normed = middle * inverse_rms
        inputs = normed * layer.post_attention_layernorm.weight
        _add_linear_gradients((mlp.gate_proj,), d_gate, inputs)
        _add_linear_gradients((mlp.up_proj,), d_up, inputs)
        d_inputs = torch.addmm(d_gate @ mlp.gate_proj.weight, d_up, mlp.up_proj.weight)
        d_middle = _through_norm_with_gain(
            layer.post_attention_layernorm, d_inputs, normed, inverse_rms
        ).add_(d_after)
        _add_linear_gradients((out,), d_middle, _gathered(attended, gather_T))
        d_attended = d_middle.new_zeros((sum(len(part) for part in attended), out.in_features))
        d_attended.index_copy_(0, gather_T, d_middle @ out.weight)
        d_attended = d_attended.view(len(d_attended), *attended[0].shape[1:])
        return d_middle, None, None, *torch.split(d_attended, [len(part) for part in attended])


def _qkv_weight(layer: Any) -> tuple[Tensor, Tensor | None]:
    """((H + 2J) E, D) weight and bias that give queries, keys and values in one product."""
    parts = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return torch.cat([part.weight for part in parts]), bias


def _head_counts(attention: Any) -> tuple[int, int]:
    """H heads of queries, and H + J of queries and keys together."""
    heads, keys = (part.out_features // attention.head_dim for part in (attention.q_proj, attention.k_proj))
    return heads, heads + keys


def _head_gain(attention: Any) -> Tensor:
    """(H + J, E) gains of the norms on queries and keys."""
    heads, rotated = _head_counts(attention)
    return torch.cat(
        [attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(rotated - heads, -1)]
    )


def _inverse_rms(x: Tensor, norm: Any) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) of the last axis."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.square_().div_(x.shape[-1]).add_(norm.variance_epsilon).rsqrt_()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (i, i + E/2) of a head rotated by its angle; -sin rotates back."""
    first, second = x.chunk(2, dim=-1)
    rotated = torch.empty_like(x, memory_format=torch.contiguous_format)
    new_first, new_second = rotated.chunk(2, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin)
    return rotated


def _gathered(attended: Any, gather_T: Tensor) -> Tensor:
    """(T, H E) output of attention in the order of the tokens."""
    return torch.cat(attended).flatten(1).index_select(0, gather_T)


def _through_norm(d_normed: Tensor, normed: Tensor, inverse_rms: Tensor) -> Tensor:
    """d(loss)/dx = r (g - n (g . n) / D) for n = x r and g = d(loss)/dn; in place of both arguments."""
    along = torch.linalg.vecdot(d_normed, normed)[..., None] / normed.shape[-1]
    return d_normed.sub_(normed.mul_(along)).mul_(inverse_rms)


def _through_norm_with_gain(norm: Any, d_inputs: Tensor, normed: Tensor, inverse_rms: Tensor) -> Tensor:
    """The same through n * gain, whose gradient is added to the gain; in place of `d_inputs` and `normed`."""
    _add_gain_gradient(norm.weight, d_inputs, normed)
    return _through_norm(d_inputs.mul_(norm.weight), normed, inverse_rms)


def _add_gain_gradient(gain: Tensor, d_output: Tensor, normed: Tensor) -> None:
    gradient_of(gain).add_((d_output * normed).flatten(0, -2).sum(0))


def _add_linear_gradients(parts: tuple[Linear, ...], d_outputs: Tensor, inputs: Tensor) -> None:
    """dW = d(output)^T input for linear layers that read the same inputs; `d_outputs` holds theirs side by side."""
    for part, d_output in zip(
        parts, torch.split(d_outputs, [part.out_features for part in parts], dim=1), strict=True
    ):
        gradient_of(part.weight).addmm_(d_output.T, inputs)
        if part.bias is not None:
            gradient_of(part.bias).add_(d_output.sum(0))


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient to add to; zeros where there is none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
