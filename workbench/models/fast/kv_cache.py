"""A key-value cache that grows in place and lets finished rows leave.

The library's dynamic layer concatenates at every token; this one writes into a buffer that grows by blocks and hands out views.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK = 64
"""Columns by which a full buffer grows."""


class GrowingLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: buffers (rows, heads, capacity, dim) of which `length` columns are filled."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append columns; returns views of everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = self._grown(self.keys, end)
            self.values = self._grown(self.values, end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grown(self, buffer: Tensor, needed: int) -> Tensor:
        capacity = -(-needed // BLOCK) * BLOCK
        larger = buffer.new_empty((*buffer.shape[:2], capacity, buffer.shape[3]))
        larger[:, :, : self.length] = buffer[:, :, : self.length]
        return larger

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may appear several times (fan-out of a prompt to its group)."""
        self.keys = self.keys[rows]
        self.values = self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


def growing_cache(layers: int) -> Cache:
    """An empty cache for a decoder with this many attention layers."""
    return Cache(layers=[GrowingLayer() for _ in range(layers)])


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Apply `GrowingLayer.select` to every layer."""
    for layer in cache.layers:
        layer.select(rows)


def causal_mask(valid_RK: Tensor, queries: int, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """(R, 1, queries, K) additive mask for the last `queries` columns: each sees valid columns up to its own, `window` at most."""
    keys = valid_RK.shape[1]
    distance_QK = (
        torch.arange(keys - queries, keys, device=valid_RK.device)[:, None]
        - torch.arange(keys, device=valid_RK.device)[None, :]
    )
    seen_QK = (distance_QK >= 0) & (distance_QK < (keys if window is None else window))
    # A padding query would see nothing and turn NaN; letting it see itself is harmless, as its output is never read.
    return additive_mask((valid_RK[:, None, None, :] & seen_QK) | (distance_QK == 0), dtype)


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where allowed, the lowest number elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
        ~allowed, torch.finfo(dtype).min
    )


def cache_argument(body: Any, cache: Cache) -> dict[str, Cache]:
    """The cache as the keyword that this body's forward takes: transformers 5.24 renamed `past_key_values` to `cache`."""
    takes = inspect.signature(type(body).forward).parameters
    return {"cache" if "cache" in takes else "past_key_values": cache}
