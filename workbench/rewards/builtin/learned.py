"""Models as rewards: a reward model, or any text classifier. The model is loaded in a process of its own.

Its class is imported by name, so that `rewards` stays free of torch.
"""

import functools
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from workbench.core.errors import RewardError
from workbench.rewards.api.decorator import reward
from workbench.rewards.builtin.text import final_answer


def prepare(model: str = "", device: str = "auto", batch_size: int = 8) -> None:
    """Load the model before the clock of the first call runs. Raises ModelError, RewardError."""
    _scorer(model, device, batch_size)


@reward(
    title="Reward model",
    range=(-10.0, 10.0),
    group=True,
    alone=True,
    weakness=(
        "It is optimised against: after some hundred steps samples please the model and no longer people."
    ),
)
def reward_model(
    completions: Sequence[str], prompt: str, *, model: str = "", device: str = "auto", batch_size: int = 8
) -> list[float]:
    """The score of a trained reward model for prompt and final answer, unscaled: usually -10 to 10.

    `model`: a folder or id with a sequence-classification head of one output. Never None.
    """
    scores: list[float] = _scorer(model, device, batch_size).rewards(
        prompt, [final_answer(text) for text in completions]
    )
    return scores


@reward(
    title="Text classifier",
    range=(0.0, 1.0),
    group=True,
    alone=True,
    weakness="It sees style, not truth: phrases typical of the label score high whatever they say.",
)
def classifier(
    completions: Sequence[str], *, model: str = "", label: str = "", device: str = "auto", batch_size: int = 8
) -> list[float]:
    """Probability that a classifier gives to `label` for the final answer (a sentiment, a topic, no toxicity).

    `model`: a folder or id with a sequence-classification head. Never None.
    """
    scorer = _scorer(model, device, batch_size)
    scores: list[float] = scorer.probabilities([final_answer(text) for text in completions], label)
    return scores


@functools.lru_cache(maxsize=4)
def _scorer(model: str, device: str, batch_size: int) -> Any:
    if not model:
        raise RewardError(
            "This reward needs the option `model`: a folder or Hugging Face id of a classifier."
        )
    return import_module("workbench.scorers.sequence").SequenceScorer(model, device, batch_size)
