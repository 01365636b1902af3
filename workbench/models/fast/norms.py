"""RMS norms that keep one number a token for the backward pass instead of two more copies of its hidden state; the same values.

In: a model. Out: the same model, its RMS norms computed by a function whose derivative is written down.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor

NAMES = (
    "LlamaRMSNorm",
    "Qwen2RMSNorm",
    "Qwen3RMSNorm",
    "Qwen3MoeRMSNorm",
    "MistralRMSNorm",
    "MixtralRMSNorm",
)
"""Classes that compute weight x (x / root mean square), and nothing else."""


def replace_rms_norms(model: Any) -> None:
    """Replace the forward of every known norm of a model, in place."""
    for module in model.modules():
        if type(module).__name__ in NAMES:
            module.forward = MethodType(_forward, module)


def _forward(module: Any, hidden_states: Tensor) -> Tensor:
    normed: Tensor = _Norm.apply(hidden_states, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


class _Norm(torch.autograd.Function):
    """y = gain * x r with r = 1 / sqrt(mean(x^2) + eps), over the last axis of size D. With n = x r and g = gain * dy:
    dx = r (g - n (g . n) / D); d(gain) = sum of dy * n over tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse_rms = (
            torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            .square_()
            .div_(x.shape[-1])
            .add_(eps)
            .rsqrt_()
        )
        ctx.save_for_backward(x, weight, inverse_rms)
        # As the library does: back to the input's type before the gain.
        normed: Tensor = (wide * inverse_rms).to(x.dtype) * weight
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse_rms = ctx.saved_tensors
        normed = x.float() * inverse_rms
        gain = None
        if ctx.needs_input_grad[1]:
            gain = (gradient * normed).flatten(0, -2).sum(0).to(weight.dtype)
        d_normed = gradient.float() * weight
        along = torch.linalg.vecdot(d_normed, normed)[..., None] / x.shape[-1]
        return (d_normed.sub_(normed.mul_(along))).mul_(inverse_rms).to(x.dtype), gain, None
