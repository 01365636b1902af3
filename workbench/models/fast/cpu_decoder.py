"""A decode step of few operations for small Llama-like models on a CPU, where calls cost more than arithmetic.

Weights are copied at every generation into the shape that decoding wants: queries, keys and values in one matrix, norm gains folded into
the matrix behind them, rotary pairs side by side so that a rotation is one complex product. The library's function to rounding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from workbench.models import logprobs
from workbench.models.fast import kv_cache as kv
from workbench.models.fast.decoder import LeftPaddedPrompts
from workbench.models.fast.fused_head import project
from workbench.models.fast.layers import is_plain_decoder
from workbench.models.lora import effective_weight

MAX_PARAMETERS = 64_000_000
"""Beyond this the products outweigh the calls, and a second copy of the weights is no longer small."""


def can_run(model: Any) -> bool:
    """Whether this decoder is of the known shape, small, in float32 and on a CPU."""
    inner = logprobs.backbone(model)
    weight = next(model.parameters())
    return bool(
        is_plain_decoder(model, inner)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and sum(parameter.numel() for parameter in inner.parameters()) <= MAX_PARAMETERS
    )


class LayerWeights(NamedTuple):
    """One decoder layer's weights, with its norm gains and attention scale folded in. D hidden, H query and J key heads of E, F inner."""

    qkv: Tensor
    """((H + 2J) E, D)"""
    qkv_bias: Tensor | None
    head_gain: Tensor | None
    """(H + J, E) of the norm on each query and key head; None where the model has none."""
    out: Tensor
    """(H E, D)"""
    out_bias: Tensor | None
    gate_up: Tensor
    """(2 F, D)"""
    down: Tensor
    """(F, D)"""


class CpuDecoder:
    """See `decoder.Decoder`. H query heads, J key heads of E dimensions; G = H / J."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self.inner = logprobs.backbone(model)
        config = model.config
        first = self.inner.layers[0].self_attn
        self.head_size: int = first.head_dim
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps: float = config.rms_norm_eps
        half = self.head_size // 2
        self.pairs_E = torch.stack([torch.arange(half), torch.arange(half) + half], dim=1).flatten()
        self.layers = [self._layer_weights(layer) for layer in self.inner.layers]
        # Tables of a large vocabulary are not copied: the final norm's gain goes into the hidden state.
        self.head = logprobs.output_head(model)

    def _layer_weights(self, layer: Any) -> LayerWeights:
        attention = layer.self_attn
        # The scale of the scores goes into the queries: through their weights, or through the gain of their norm.
        normed = hasattr(attention, "q_norm")
        q, k = (
            self._paired(effective_weight(part), count)
            for part, count in ((attention.q_proj, self.heads), (attention.k_proj, self.key_heads))
        )
        biases = [_bias(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
        bias = gain = None
        if biases[0] is not None:
            q_bias, k_bias = (
                self._paired(part, count)
                for part, count in ((biases[0], self.heads), (biases[1], self.key_heads))
            )
            bias = torch.cat([q_bias * (1.0 if normed else attention.scaling), k_bias, biases[2]])
        if normed:
            gain = torch.cat(
                [
                    (attention.q_norm.weight[self.pairs_E] * attention.scaling).expand(self.heads, -1),
                    attention.k_norm.weight[self.pairs_E].expand(self.key_heads, -1),
                ]
            )
        else:
            q = q * attention.scaling
        qkv = torch.cat([q, k, effective_weight(attention.v_proj)]) * layer.input_layernorm.weight
        gate_up = torch.cat([effective_weight(layer.mlp.gate_proj), effective_weight(layer.mlp.up_proj)])
        return LayerWeights(
            qkv.contiguous(),
            bias,
            gain,
            effective_weight(attention.o_proj).T.contiguous(),
            _bias(attention.o_proj),
            (gate_up * layer.post_attention_layernorm.weight).contiguous(),
            effective_weight(layer.mlp.down_proj).T.contiguous(),
        )

    def _paired(self, weight: Tensor, heads: int) -> Tensor:
        """Rows of each head reordered so that the two halves of a rotary pair are neighbours."""
        return weight.view(heads, self.head_size, *weight.shape[1:])[:, self.pairs_E].flatten(0, 1)

    def start(self, prompts: Sequence[tuple[int, ...]], prompt_R: Tensor, max_new_tokens: int) -> Tensor:
        """See `Decoder.start`."""
        padded = LeftPaddedPrompts(prompts, self.pad_id, prompt_R.device)
        cache = kv.growing_cache(len(self.layers))
        hidden_PD = padded.read(
            self.model, cache, kv.causal_mask(padded.valid_PK, padded.width, torch.float32)
        )
        self.filled = padded.width
        self.caches = []
        for layer in cache.layers:
            keys, values = (
                layer.keys[:, :, : self.filled][..., self.pairs_E],
                layer.values[:, :, : self.filled],
            )
            self.caches.append(self._grown(torch.stack([keys, values])[:, prompt_R]))
        self.position_R = padded.lengths_P[prompt_R]
        span = torch.arange(int(self.position_R.max()) + max_new_tokens)
        cos_1SE, sin_1SE = self.inner.rotary_emb(hidden_PD, span[None])
        half = self.head_size // 2
        # e^(i angle) of each position and pair: multiplying a complex pair by it rotates the pair.
        self.rotation_SE = torch.complex(cos_1SE[0, :, :half].contiguous(), sin_1SE[0, :, :half].contiguous())
        columns = torch.arange(padded.width + max_new_tokens)
        pads_RK = columns[None, :] < (padded.width - self.position_R)[:, None]
        # Prompts of one length need no mask at all.
        self.mask_R1K = (
            kv.additive_mask(~pads_RK, torch.float32).repeat_interleave(self.key_heads, 0)[:, None]
            if bool(pads_RK.any())
            else None
        )
        return project(hidden_PD, self.head.weight, self.head.bias)[prompt_R]

    def step(self, token_R: Tensor) -> Tensor:
        """See `Decoder.step`."""
        rows, ratio = len(token_R), self.heads // self.key_heads
        rotation_R1E = self.rotation_SE[self.position_R][:, None]
        rotated = self.heads + self.key_heads
        at, self.filled = self.filled, self.filled + 1
        if self.filled > self.caches[0].shape[3]:
            self.caches = [self._grown(cache[:, :, :, :at]) for cache in self.caches]
        mask = None if self.mask_R1K is None else self.mask_R1K[..., : self.filled]
        x_RD = self.inner.embed_tokens.weight[token_R]
        for layer, cache in zip(self.layers, self.caches, strict=True):
            qkv_RHE = functional.linear(x_RD, layer.qkv).mul_(self._inverse_rms(x_RD))
            if layer.qkv_bias is not None:
                qkv_RHE += layer.qkv_bias
            qkv_RHE = qkv_RHE.view(rows, -1, self.head_size)
            qk_RHE = qkv_RHE[:, :rotated]
            if layer.head_gain is not None:
                qk_RHE.mul_(self._inverse_rms(qk_RHE)).mul_(layer.head_gain)
            torch.view_as_complex(qk_RHE.view(rows, rotated, -1, 2)).mul_(rotation_R1E)
            cache[:, :, :, at] = qkv_RHE[:, self.heads :].view(rows, 2, -1, self.head_size).transpose(0, 1)
            key, value = (part.flatten(0, 1)[:, : self.filled] for part in cache.unbind())
            query = qkv_RHE[:, : self.heads].reshape(rows * self.key_heads, ratio, self.head_size)
            score = (
                torch.bmm(query, key.transpose(1, 2))
                if mask is None
                else torch.baddbmm(mask, query, key.transpose(1, 2))
            )
            attended = torch.bmm(score.softmax(-1), value)
            x_RD.addmm_(attended.reshape(rows, -1), layer.out)
            if layer.out_bias is not None:
                x_RD += layer.out_bias
            gate, up = functional.linear(x_RD, layer.gate_up).mul_(self._inverse_rms(x_RD)).chunk(2, dim=1)
            x_RD.addmm_(functional.silu(gate, inplace=True).mul_(up), layer.down)
        self.position_R = self.position_R + 1
        last_RD = x_RD.mul_(self._inverse_rms(x_RD)).mul_(self.inner.norm.weight)
        return project(last_RD, self.head.weight, self.head.bias)

    def select(self, rows: Tensor) -> None:
        """See `Decoder.select`."""
        self.caches = [cache[:, rows] for cache in self.caches]
        self.position_R = self.position_R[rows]
        if self.mask_R1K is not None:
            self.mask_R1K = self.mask_R1K.view(-1, self.key_heads, 1, self.mask_R1K.shape[2])[rows].flatten(
                0, 1
            )

    def _inverse_rms(self, x: Tensor) -> Tensor:
        """1 / sqrt(mean(x^2) + eps) of the last axis."""
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return norm.square_().mul_(1.0 / x.shape[-1]).add_(self.eps).rsqrt_()

    def _grown(self, cache: Tensor) -> Tensor:
        """(2, R, J, capacity, E): keys and values with a block of free columns behind them."""
        filled = cache.shape[3]
        capacity = -(-(filled + 1) // kv.BLOCK) * kv.BLOCK
        larger = cache.new_empty((*cache.shape[:3], capacity, cache.shape[4]))
        larger[:, :, :, :filled] = cache
        return larger


def _bias(linear: Any) -> Any:
    return (linear.get_base_layer() if hasattr(linear, "get_base_layer") else linear).bias
