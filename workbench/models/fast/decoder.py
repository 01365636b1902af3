"""Decoding through the library's own forward: prompts read once, their cache fanned out to the samples, one mask built for all steps.

In: prompts, then the tokens just drawn. Out: the next token's logits. It takes every decoder of which `unsupported_reason` is None.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.models import logprobs
from workbench.models.fast import kv_cache as kv
from workbench.models.fast import layers


class Decoder(Protocol):
    """R live rows that grow by a token a step. P prompts, K columns of the key-value cache, V vocabulary."""

    def start(self, prompts: Sequence[tuple[int, ...]], prompt_R: Tensor, max_new_tokens: int) -> Tensor:
        """(R, V) logits after the prompts; row r continues prompt `prompt_R[r]`, by at most `max_new_tokens`."""
        ...

    def step(self, token_R: Tensor) -> Tensor:
        """(R, V) logits after one more token a row."""
        ...

    def select(self, rows: Tensor) -> None:
        """Only these rows go on, in this order."""
        ...


def unsupported_reason(model: Any) -> str | None:
    """Why the local engine cannot decode with a model, seen without decoding; None where nothing speaks against trying it."""
    config = model.config
    text = config.get_text_config(decoder=True)
    unknown = layers.attention_kinds(text) - {"full_attention", "sliding_attention"}
    if unknown:
        return f"it has {', '.join(sorted(unknown))} layers"
    if not logprobs.has_plain_head(model):
        return "its logits are not just its output head on its last hidden state (they are capped or scaled)"
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    return None


class LeftPaddedPrompts:
    """P prompts side by side, left-padded to one width of K columns."""

    def __init__(self, prompts: Sequence[tuple[int, ...]], pad_id: int, device: torch.device) -> None:
        lengths = [len(prompt) for prompt in prompts]
        self.width = max(lengths)
        self.lengths_P = torch.tensor(lengths, device=device)
        ids_PK = torch.full((len(lengths), self.width), pad_id, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids_PK[row, self.width - len(prompt) :] = torch.tensor(prompt)
        self.ids_PK = ids_PK.to(device)
        columns = torch.arange(self.width, device=device)
        self.valid_PK = columns[None, :] >= (self.width - self.lengths_P)[:, None]

    def read(self, model: Any, cache: Any, masks: Any) -> Tensor:
        """(P, D) hidden state of each prompt's last token; fills the cache."""
        body = logprobs.backbone(model)
        last_PD: Tensor = body(
            input_ids=self.ids_PK,
            attention_mask=masks,
            position_ids=(self.valid_PK.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
            **kv.cache_argument(body, cache),
        ).last_hidden_state[:, -1]
        return last_PD


class LibraryDecoder:
    """Any decoder with plain or sliding-window attention."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self.body = logprobs.backbone(model)
        text = model.config.get_text_config(decoder=True)
        self.layers = text.num_hidden_layers
        self.kinds = sorted(layers.attention_kinds(text))
        self.window: int | None = text.sliding_window if "sliding_attention" in self.kinds else None

    def start(self, prompts: Sequence[tuple[int, ...]], prompt_R: Tensor, max_new_tokens: int) -> Tensor:
        """See `Decoder.start`."""
        dtype = next(self.model.parameters()).dtype
        padded = LeftPaddedPrompts(prompts, self.pad_id, prompt_R.device)
        self.cache = kv.growing_cache(self.layers)
        self.cached = kv.cache_argument(self.body, self.cache)
        hidden_PD = padded.read(
            self.model,
            self.cache,
            self._by_kind(
                kv.causal_mask(padded.valid_PK, padded.width, dtype),
                kv.causal_mask(padded.valid_PK, padded.width, dtype, self.window),
            ),
        )
        kv.select_rows(self.cache, prompt_R)
        self.filled = padded.width
        self.position_R = padded.lengths_P[prompt_R]
        # Built once for all steps: column k of row r is masked where the prompt's left padding lies.
        columns = torch.arange(padded.width + max_new_tokens, device=prompt_R.device)
        padding_RK = columns[None, :] < (padded.width - self.position_R)[:, None]
        self.mask_R11K = kv.additive_mask(~padding_RK, dtype)[:, None, None, :]
        self.sliding_R11K = self.mask_R11K
        if self.window is not None:
            self.sliding_R11K = self.mask_R11K.clone()
            self.sliding_R11K[..., : max(0, padded.width + 1 - self.window)] = torch.finfo(dtype).min
        logits_PV: Tensor = logprobs.output_head(self.model)(hidden_PD)
        return logits_PV[prompt_R]

    def step(self, token_R: Tensor) -> Tensor:
        """See `Decoder.step`."""
        if self.window is not None and self.filled >= self.window:  # one more column is too far back
            self.sliding_R11K[..., self.filled - self.window] = torch.finfo(self.sliding_R11K.dtype).min
        self.filled += 1
        hidden_R1D = self.body(
            input_ids=token_R[:, None],
            attention_mask=self._by_kind(
                self.mask_R11K[..., : self.filled], self.sliding_R11K[..., : self.filled]
            ),
            position_ids=self.position_R[:, None],
            use_cache=True,
            **self.cached,
        ).last_hidden_state
        self.position_R = self.position_R + 1
        logits_RV: Tensor = logprobs.output_head(self.model)(hidden_R1D[:, 0])
        return logits_RV

    def select(self, rows: Tensor) -> None:
        """See `Decoder.select`."""
        kv.select_rows(self.cache, rows)
        self.position_R = self.position_R[rows]
        same = self.sliding_R11K is self.mask_R11K
        self.mask_R11K = self.mask_R11K[rows]
        self.sliding_R11K = self.mask_R11K if same else self.sliding_R11K[rows]

    def _by_kind(self, full: Tensor, sliding: Tensor) -> Any:
        """The library takes one mask, or one for each kind of attention where layers differ."""
        by_kind = {"full_attention": full, "sliding_attention": sliding}
        return by_kind if len(self.kinds) > 1 else by_kind[self.kinds[0]]
