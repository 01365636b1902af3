"""Sequence classifiers as scorers: a reward model with one output, or the probability of a label.

In: texts of prompts and completions. Out: one float each. Loads torch and transformers; safetensors only, no remote
code.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from workbench.core.errors import ModelError

_LONGEST = 4096
"""Tokens of a scored text where the model names no limit of its own; the front is cut, the completion stays."""


class SequenceScorer:
    """A classifier on a device, in evaluation mode."""

    def __init__(self, model: str, device: str = "auto", batch_size: int = 8) -> None:
        """Raises ModelError for a folder or id that is no trained classifier."""
        where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                model, padding_side="right", truncation_side="left"
            )
            network, facts = AutoModelForSequenceClassification.from_pretrained(
                model, output_loading_info=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise ModelError(
                f"{model!r} cannot be loaded as a classifier: {first} Give a folder or id with safetensors."
            ) from None
        missing = sorted(facts["missing_keys"])
        if missing:
            raise ModelError(
                f"{model!r} has no trained score head ({', '.join(missing[:3])} missing): its scores would "
                "be random. Give a model that was trained as a reward model or classifier."
            )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        network.config.pad_token_id = self._tokenizer.pad_token_id
        self._model = network.to(where).eval()
        self._batch_size = batch_size
        limit = getattr(network.config, "max_position_embeddings", None) or _LONGEST
        self._longest = min(int(limit), _LONGEST)

    @property
    def labels(self) -> list[str]:
        """Names of the outputs, in order."""
        names: dict[int, str] = self._model.config.id2label
        return [names[index] for index in range(len(names))]

    def rewards(self, prompt: str, completions: Sequence[str]) -> list[float]:
        """The one output of a reward model for each completion, with the chat template where there is one."""
        if len(self.labels) != 1:
            raise ModelError(
                f"A reward model has one output, this one has {len(self.labels)}: {', '.join(self.labels)}. "
                "Use the reward `classifier` with one of these labels."
            )
        return [float(row[0]) for row in self._logits([self._dialogue(prompt, text) for text in completions])]

    def probabilities(self, completions: Sequence[str], label: str) -> list[float]:
        """Probability of a label for each completion: sigmoid for several labels at once, softmax otherwise."""
        if label not in self.labels:
            raise ModelError(f"The classifier knows no label {label!r}. It has: {', '.join(self.labels)}.")
        logits = torch.stack(self._logits(completions))
        several = self._model.config.problem_type == "multi_label_classification" or len(self.labels) == 1
        probabilities = logits.sigmoid() if several else logits.softmax(-1)
        return [float(one) for one in probabilities[:, self.labels.index(label)]]

    def _dialogue(self, prompt: str, completion: str) -> str:
        if not self._tokenizer.chat_template:
            return f"{prompt}\n{completion}"
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))

    @torch.inference_mode()
    def _logits(self, texts: Sequence[str]) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for start in range(0, len(texts), self._batch_size):
            batch = self._tokenizer(
                list(texts[start : start + self._batch_size]),
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            ).to(self._model.device)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            found += self._model(**inputs).logits.float().cpu().unbind(0)
        return found
