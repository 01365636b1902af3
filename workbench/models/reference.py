"""A reference model that follows the policy: mixed in weight space, for full fine-tuning and adapters alike.

An adapter's own factors cannot be mixed, because their product is not linear in them: the weights that the adapter stands for are.
"""

from collections.abc import Iterator

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from workbench.algorithm.kl_controllers import mix_reference
from workbench.models.lora import effective_weight
from workbench.models.policy import Policy


@torch.no_grad()
def sync_reference(policy: Policy, alpha: float) -> None:
    """reference = alpha x policy + (1 - alpha) x reference (TR-DPO, 2404.09656; alpha 1 replaces it, as R1 does)."""
    for reference_weight, policy_weight in _weight_pairs(policy):
        reference_weight.copy_(mix_reference(policy_weight.float(), reference_weight.float(), alpha))


def _weight_pairs(policy: Policy) -> Iterator[tuple[Tensor, Tensor]]:
    """Each weight of the reference that can differ from the policy's, with the policy's own."""
    if not policy.is_lora:
        yield from zip(policy.reference.parameters(), policy.model.parameters(), strict=True)
        return
    for name, module in policy.model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield policy.reference.get_submodule(name).weight, effective_weight(module)
