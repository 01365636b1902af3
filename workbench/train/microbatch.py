"""One micro-batch of an update: forward, the objective's weights, backward; gradients are added to the parameters.

Two ways that give the same numbers. *Packed*: prompts once a group, head and loss fused, derivatives written down (`weights.py`).
*Padded*: one padded batch, and autograd through the loss as a formula (`losses.py`), for any network and any differentiable loss.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.algorithm import losses
from workbench.algorithm import token_grads as algorithm
from workbench.core.types import Sampling
from workbench.models.fast import head as fused
from workbench.models.fast import packing
from workbench.models.fast.layers import add_gradient
from workbench.models.logprobs import Sequences, TokenStats, head, token_stats, unflatten
from workbench.models.score import packed


class Asked(NamedTuple):
    """What the objective needs to know about some answers besides their log-probabilities; rows are answers."""

    valid_B_T: Tensor
    """Where a token is."""
    mask_B_T: Tensor
    """Where a token counts in the loss: float, 0 for samples left out of it."""
    advantages_B: Tensor
    sampler_B_T: Tensor
    old_B_T: Tensor | None
    reference_B_T: Tensor | None
    objective: algorithm.Objective
    normalizer: algorithm.Normalizer

    def weights(self, logp_B_T: Tensor, lengths_B: Tensor | None = None) -> algorithm.TokenWeights:
        """The exact derivative of the loss by each log-probability."""
        return algorithm.token_weights(
            logp_B_T,
            self.old_B_T,
            self.reference_B_T,
            self.sampler_B_T,
            self.advantages_B,
            self.mask_B_T,
            self.objective,
            self.normalizer,
            lengths_B,
        )

    def loss(self, stats: TokenStats) -> losses.LossTerms:
        """The loss as a formula of what was seen."""
        assert stats.entropy_N is not None
        return losses.loss(
            unflatten(stats.logp_N, self.valid_B_T),
            self.old_B_T,
            self.reference_B_T,
            self.sampler_B_T,
            self.advantages_B,
            self.mask_B_T,
            self.objective,
            self.normalizer,
            unflatten(stats.entropy_N, self.valid_B_T),
        )

    def tokens(self, part: slice) -> Self:
        """Some of the flat tokens, each as an answer of its own."""
        row_N, column_N = (index[part] for index in self.valid_B_T.nonzero(as_tuple=True))

        def flat(table_B_T: Tensor) -> Tensor:
            return table_B_T[row_N, column_N][:, None]

        return self._replace(
            valid_B_T=flat(self.valid_B_T),
            mask_B_T=flat(self.mask_B_T),
            advantages_B=self.advantages_B[row_N],
            sampler_B_T=flat(self.sampler_B_T),
            old_B_T=None if self.old_B_T is None else flat(self.old_B_T),
            reference_B_T=None if self.reference_B_T is None else flat(self.reference_B_T),
            normalizer=self.normalizer.rows(row_N),
        )

    def weigh(self, part: slice, logp_N: Tensor) -> Tensor:
        """d(loss)/d(log-prob) of some of the flat tokens; of all of them where the objective is not separable."""
        if len(logp_N) == int(self.valid_B_T.sum()):
            whole: Tensor = self.weights(unflatten(logp_N, self.valid_B_T)).weight_B_T[self.valid_B_T]
            return whole
        lengths_B = self.mask_B_T.sum(1)[self.valid_B_T.nonzero(as_tuple=True)[0][part]]
        some: Tensor = self.tokens(part).weights(logp_N[:, None], lengths_B).weight_B_T[:, 0]
        return some

    def entropy_weight_N(self) -> Tensor | None:
        """The weight of each flat token's entropy in the objective; None where there is no such bonus."""
        if not self.objective.entropy_coef:
            return None
        share_B: Tensor = self.normalizer.sample_weights_B / max(self.normalizer.tokens, 1e-9)
        return (self.objective.entropy_coef * share_B[:, None] * self.mask_B_T)[self.valid_B_T]


class Pass(NamedTuple):
    """What a micro-batch saw and asked."""

    stats: TokenStats
    weights: algorithm.TokenWeights
    loss: float

    @classmethod
    @torch.no_grad()
    def of(cls, stats: TokenStats, asked: Asked) -> Self:
        """Weights and loss as recorded, from what was seen."""
        return cls(
            stats, asked.weights(unflatten(stats.logp_N, asked.valid_B_T)), float(asked.loss(stats).total)
        )


def run(
    model: Any,
    batch: Sequences,
    samples: NDArray[np.int64],
    asked: Asked,
    sampling: Sampling,
    pad_id: int,
    *,
    has_signal: bool,
    precision: AbstractContextManager[Any] | None = None,
) -> Pass:
    """Read the samples and, where anything is asked of them, add the loss's gradient to the parameters' own."""
    with torch.set_grad_enabled(has_signal), precision or nullcontext():
        if packed(model):
            return _packed(model, packing.lay_out(batch, samples, asked.mask_B_T.device), asked, sampling)
        stats = token_stats(
            model,
            batch.take(samples),
            sampling,
            pad_id,
            entropy_gradient=asked.objective.entropy_coef > 0,
        )
    if has_signal:
        asked.loss(stats).total.backward()  # type: ignore[no-untyped-call]
    return Pass.of(stats, asked)


def _packed(model: Any, pack: packing.Pack, asked: Asked, sampling: Sampling) -> Pass:
    output = head(model)
    if not torch.is_grad_enabled():
        hidden_ND = packing.hidden(model, pack)
        return Pass.of(fused.look(output, hidden_ND, pack.target_N, sampling), asked)
    embedding = model.get_input_embeddings()
    looked_up_TD = None
    if type(embedding) is torch.nn.Embedding and embedding.weight.requires_grad:
        # Its gradient is added row by row below; the library's own would be a whole [vocabulary, hidden] table a micro-batch.
        looked_up_TD = embedding.weight.detach()[pack.ids_T].requires_grad_()
    hidden_ND = packing.hidden(model, pack, looked_up_TD)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        passed = fused.look_and_pull(
            output,
            hidden_ND.detach(),
            pack.target_N,
            sampling,
            asked.weigh,
            separable=asked.objective.separable,
            entropy_weight_N=asked.entropy_weight_N(),
        )
    hidden_ND.backward(passed.gradient_ND)  # type: ignore[no-untyped-call]
    if looked_up_TD is not None and looked_up_TD.grad is not None:
        if embedding.padding_idx is not None:  # a row that the library keeps still, wherever it stands
            looked_up_TD.grad[pack.ids_T == embedding.padding_idx] = 0.0
        add_gradient(embedding.weight).index_add_(0, pack.ids_T, looked_up_TD.grad)
    return Pass.of(passed.stats, asked)
