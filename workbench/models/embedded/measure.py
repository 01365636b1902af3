"""What the embedded model does before any reinforcement learning, measured through plain `generate`.

In: a model, its tokenizer and prompts of the chain task. Out: accuracies, lengths and style shares. The
recipe records them in the manifest; the tests hold the shipped model to them.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from workbench.core.types import Prompt
from workbench.prompts import chain

MAX_NEW_TOKENS = 256


class Figures(NamedTuple):
    """Accuracies are shares of the problems; lengths are mean completion tokens, the end token included."""

    sampled_accuracy: float
    sampled_length: float
    greedy_accuracy: float
    greedy_length: float
    style_shares: dict[str, float]
    """Of the sampled completions."""


def untuned(model: Any, tokenizer: Any, prompts: Sequence[Prompt], seed: int) -> Figures:
    """Complete every prompt once sampled at temperature 1 and once greedily."""
    sampled, sampled_lengths = complete(model, tokenizer, prompts, seed=seed)
    greedy, greedy_lengths = complete(model, tokenizer, prompts)
    return Figures(
        sampled_accuracy=accuracy(sampled, prompts),
        sampled_length=sum(sampled_lengths) / len(prompts),
        greedy_accuracy=accuracy(greedy, prompts),
        greedy_length=sum(greedy_lengths) / len(prompts),
        style_shares={str(name): share for name, share in chain.style_shares(sampled).items()},
    )


def worked_accuracy(model: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> dict[int, float]:
    """Greedy accuracy by level where the first step of a worked solution is prefilled: what the model could do."""
    first_steps = [re.match(r"Chain: (\d[-+*]\d)", prompt.question) for prompt in prompts]
    prefills = [f"<think>{step.group(1)}=" for step in first_steps if step]
    rests, _ = complete(model, tokenizer, prompts, prefills=prefills)
    right: dict[int, list[bool]] = {}
    for start, rest, prompt in zip(prefills, rests, prompts, strict=True):
        right.setdefault(prompt.columns["level"], []).append(chain.verify(start + rest, str(prompt.answer)))
    return {level: sum(marks) / len(marks) for level, marks in sorted(right.items())}


def accuracy(completions: Sequence[str], prompts: Sequence[Prompt]) -> float:
    """Share of completions whose final answer is exactly right."""
    pairs = zip(completions, prompts, strict=True)
    return sum(chain.verify(text, str(prompt.answer)) for text, prompt in pairs) / len(prompts)


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    seed: int | None = None,
    prefills: Sequence[str] | None = None,
) -> tuple[list[str], list[int]]:
    """One completion a prompt and its length in tokens; greedy without a seed.

    `prefills`: the beginning of each completion; not part of what is returned.
    """
    chats = [[{"role": "user", "content": prompt.question}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    if prefills is not None:
        texts = [text + start for text, start in zip(texts, prefills, strict=True)]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    # top_k must be given: generate otherwise keeps only the 50 likeliest tokens.
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} if seed is not None else {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            do_sample=seed is not None,
            **sampling,
        )
    completions = ids[:, batch["input_ids"].shape[1] :]
    lengths = (completions != tokenizer.pad_token_id).sum(dim=1).tolist()
    return tokenizer.batch_decode(completions, skip_special_tokens=True), lengths
