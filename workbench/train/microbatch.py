"""One microbatch of an update: forward, d(loss)/d(log-prob) of each token, backward; gradients are added to the parameters.

Two ways that give the same numbers. *Packed*: each prompt once a group, head and loss fused, derivatives written down (`token_grads.py`).
*Padded*: one padded batch, and autograd through the loss as a formula (`losses.py`), for any network and any differentiable loss.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.algorithm import losses, token_grads
from workbench.core.types import Sampling
from workbench.models.fast import fused_head, packing
from workbench.models.fast.layers import gradient_of
from workbench.models.logprobs import Sequences, TokenStats, output_head, token_stats, unflatten
from workbench.models.per_token_logps import is_packed


class LossInputs(NamedTuple):
    """What the loss of some completions needs besides their log-probabilities; one row a completion."""

    valid_B_T: Tensor
    """Where a token is."""
    mask_B_T: Tensor
    """Where a token counts in the loss: float, 0 for samples left out of it."""
    advantages_B: Tensor
    sampler_B_T: Tensor
    old_B_T: Tensor | None
    reference_B_T: Tensor | None
    objective: token_grads.Objective
    normalizer: token_grads.Normalizer

    def grads(self, logp_B_T: Tensor, lengths_B: Tensor | None = None) -> token_grads.TokenGrads:
        """The exact derivative of the loss by each log-probability."""
        return token_grads.loss_grads(
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
        """Some of the flat tokens, each as a row of its own."""
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

    def grads_N(self, part: slice, logp_N: Tensor) -> Tensor:
        """d(loss)/d(log-prob) of some of the flat tokens; of all of them where the objective is not separable."""
        if len(logp_N) == int(self.valid_B_T.sum()):
            every: Tensor = self.grads(unflatten(logp_N, self.valid_B_T)).grad_B_T[self.valid_B_T]
            return every
        lengths_B = self.mask_B_T.sum(1)[self.valid_B_T.nonzero(as_tuple=True)[0][part]]
        some: Tensor = self.tokens(part).grads(logp_N[:, None], lengths_B).grad_B_T[:, 0]
        return some

    def entropy_weight_N(self) -> Tensor | None:
        """(N,) weight of each token's entropy in the objective; None where there is no entropy bonus."""
        if not self.objective.entropy_coef:
            return None
        share_B: Tensor = self.normalizer.sample_weights_B / max(self.normalizer.tokens, 1e-9)
        return (self.objective.entropy_coef * share_B[:, None] * self.mask_B_T)[self.valid_B_T]


class MicrobatchResult(NamedTuple):
    """What the forward pass saw, and the derivatives and loss that followed from it."""

    stats: TokenStats
    grads: token_grads.TokenGrads
    loss: float

    @classmethod
    @torch.no_grad()
    def of(cls, stats: TokenStats, inputs: LossInputs) -> Self:
        """Derivatives and loss as recorded, from what the forward pass saw."""
        return cls(
            stats, inputs.grads(unflatten(stats.logp_N, inputs.valid_B_T)), float(inputs.loss(stats).total)
        )


def run(
    model: Any,
    batch: Sequences,
    samples: NDArray[np.int64],
    inputs: LossInputs,
    sampling: Sampling,
    pad_id: int,
    *,
    has_signal: bool,
    precision: AbstractContextManager[Any] | None = None,
) -> MicrobatchResult:
    """Forward pass over the samples and, with signal, the backward pass: the loss's gradient is added to the parameters' own."""
    with torch.set_grad_enabled(has_signal), precision or nullcontext():
        if is_packed(model):
            return _packed(
                model, packing.build_pack(batch, samples, inputs.mask_B_T.device), inputs, sampling
            )
        stats = token_stats(
            model,
            batch.take(samples),
            sampling,
            pad_id,
            entropy_gradient=inputs.objective.entropy_coef > 0,
        )
    if has_signal:
        inputs.loss(stats).total.backward()  # type: ignore[no-untyped-call]
    return MicrobatchResult.of(stats, inputs)


def _packed(model: Any, pack: packing.Pack, inputs: LossInputs, sampling: Sampling) -> MicrobatchResult:
    output = output_head(model)
    if not torch.is_grad_enabled():
        hidden_ND = packing.hidden_states(model, pack)
        return MicrobatchResult.of(fused_head.head_stats(output, hidden_ND, pack.target_N, sampling), inputs)
    embedding = model.get_input_embeddings()
    looked_up_TD = None
    if type(embedding) is torch.nn.Embedding and embedding.weight.requires_grad:
        # Its gradient is added row by row below; the library's own would be a whole [vocabulary, hidden] table a microbatch.
        looked_up_TD = embedding.weight.detach()[pack.ids_T].requires_grad_()
    hidden_ND = packing.hidden_states(model, pack, looked_up_TD)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        passed = fused_head.stats_and_gradients(
            output,
            hidden_ND.detach(),
            pack.target_N,
            sampling,
            inputs.grads_N,
            separable=inputs.objective.separable,
            entropy_weight_N=inputs.entropy_weight_N(),
        )
    hidden_ND.backward(passed.hidden_gradient_ND)  # type: ignore[no-untyped-call]
    if looked_up_TD is not None and looked_up_TD.grad is not None:
        if embedding.padding_idx is not None:  # a row that the library keeps still, wherever it stands
            looked_up_TD.grad[pack.ids_T == embedding.padding_idx] = 0.0
        gradient_of(embedding.weight).index_add_(0, pack.ids_T, looked_up_TD.grad)
    return MicrobatchResult.of(passed.stats, inputs)
