"""One token further through the library's own forward: prompts read once, their cache fanned out, one mask built for all steps.

In: prompts, then the tokens just drawn. Out: the next token's logits. It drives every decoder that `unsupported_reason` lets pass.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.models import logprobs
from workbench.models.fast import kv_cache as kv
from workbench.models.fast import layers


class Decoder(Protocol):
    """R live rows that grow by a token a step."""

    def start(self, prompts: Sequence[tuple[int, ...]], repeat_R: Tensor, room: int) -> Tensor:
        """(R, V) logits after the prompts; row r continues prompt `repeat_R[r]`, by at most `room` tokens."""
        ...

    def step(self, token_R: Tensor) -> Tensor:
        """(R, V) logits after one more token a row."""
        ...

    def select(self, rows: Tensor) -> None:
        """Only these rows go on, in this order."""
        ...


def unsupported_reason(config: Any) -> str | None:
    """Why the local engine cannot drive a model; None where it can."""
    text = config.get_text_config(decoder=True)
    odd = layers.attention_kinds(text) - {"full_attention", "sliding_attention"}
    if odd:
        return f"it has {', '.join(sorted(odd))} layers"
    if not logprobs.has_plain_head(config):
        return "its logits are capped or scaled after the output head"
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    return None


class LeftPaddedPrompts:
    """Several prompts side by side, left-padded to one width."""

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

    def start(self, prompts: Sequence[tuple[int, ...]], repeat_R: Tensor, room: int) -> Tensor:
        """See `Decoder.start`."""
        dtype = next(self.model.parameters()).dtype
        asked = LeftPaddedPrompts(prompts, self.pad_id, repeat_R.device)
        self.cache = kv.growing_cache(self.layers)
        self.cached = kv.cache_argument(self.body, self.cache)
        hidden_PD = asked.read(
            self.model,
            self.cache,
            self._by_kind(
                kv.causal_mask(asked.valid_PK, asked.width, dtype),
                kv.causal_mask(asked.valid_PK, asked.width, dtype, self.window),
            ),
        )
        kv.select_rows(self.cache, repeat_R)
        self.filled = asked.width
        self.position_R = asked.lengths_P[repeat_R]
        # Built once for the whole answer: column k of row r is masked where the prompt's left padding lies.
        columns = torch.arange(asked.width + room, device=repeat_R.device)
        hidden_RK = columns[None, :] < (asked.width - self.position_R)[:, None]
        self.mask_R11K = kv.additive_mask(~hidden_RK, dtype)[:, None, None, :]
        self.sliding_R11K = self.mask_R11K
        if self.window is not None:
            self.sliding_R11K = self.mask_R11K.clone()
            self.sliding_R11K[..., : max(0, asked.width + 1 - self.window)] = torch.finfo(dtype).min
        logits_PV: Tensor = logprobs.output_head(self.model)(hidden_PD)
        return logits_PV[repeat_R]

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
        """The library takes one mask, or one by kind where layers differ."""
        by_kind = {"full_attention": full, "sliding_attention": sliding}
        return by_kind if len(self.kinds) > 1 else by_kind[self.kinds[0]]
