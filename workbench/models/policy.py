"""The policy: a causal language model in training, with what sampling and the loss need to know of it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.core.errors import ModelError


@dataclass(slots=True)
class Policy:
    """A model in training and its frozen reference.

    `model` is never wrapped by `accelerate.prepare` or by DistributedDataParallel: packed forward passes and the fused output head
    call the decoder and the head apart, and both add gradients to parameters themselves, which a wrapper's hooks would not see
    (docs/decisions/0026).
    """

    model: Any
    """The trained network: a PreTrainedModel, or a PeftModel around one."""
    tokenizer: Any
    device: torch.device
    eos_ids: frozenset[int]
    """Every id that ends a completion; models may have several."""
    pad_id: int
    context: int
    """Most positions that the network accepts."""
    is_lora: bool = False
    reference: Any = None
    """Frozen copy; None where none is needed, and with LoRA, where the adapter switched off is the reference unless it moves."""
    initial: Any = None
    """Frozen copy of the start beside a reference that moves; None elsewhere, and with LoRA."""
    version: int = 0
    """Optimiser updates so far."""
    notes: list[str] = field(default_factory=list)
    """What had to be decided for this model, in words for the record."""

    def text_of(self, token_ids: Iterable[int]) -> str:
        """A completion's text as rewards read it, without end and padding tokens. Other special tokens stay: `<think>` is one in
        many vocabularies."""
        left_out = {*self.eos_ids, self.pad_id}
        kept = [int(token) for token in token_ids if int(token) not in left_out]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False))

    @contextmanager
    def reference_model(self, *, initial: bool = False) -> Iterator[Any]:
        """The reference network, without gradient; `initial`: the policy as it was at the start, which differs from a
        reference that has moved. Raises ModelError where this policy was loaded without one."""
        copy = self.initial if initial else self.reference
        with torch.no_grad():
            if copy is not None:
                yield copy
            elif self.is_lora:
                with self.model.disable_adapter():
                    yield self.model
            else:
                raise ModelError(
                    "This policy has no reference: it was loaded for sampling only. Load it with a reference."
                )

    def trainable(self) -> list[torch.nn.Parameter]:
        """Parameters that the optimiser updates, in a fixed order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]
