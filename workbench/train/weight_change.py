"""Whether an update moved the weights: in lower precision a step smaller than half of a weight's last bit is rounded away.

In: trained parameters before and after an optimiser step. Out: the share of them that changed.
"""

from collections.abc import Sequence

from torch import Tensor

MOST = 4096
"""Weights that are compared of each parameter, evenly spread."""


def weight_samples(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Copies of some weights of each parameter in lower precision; none in float32, where next to every weight moves."""
    return [_some(weight).clone() for weight in parameters if weight.element_size() < 4]


def changed_share(before: Sequence[Tensor], parameters: Sequence[Tensor]) -> float:
    """Share of the samples that are not what they were."""
    after = [_some(weight) for weight in parameters if weight.element_size() < 4]
    changed = sum(int((a != b).sum()) for a, b in zip(after, before, strict=True))
    return changed / sum(b.numel() for b in before)


def _some(weight: Tensor) -> Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // MOST)]
