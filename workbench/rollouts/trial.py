"""What a sampler and the trainer can do with a model is tried before the first step, on a few made-up prompts.

In: an engine and its policy. Out: how far its log-probabilities, and the trainer's, are from a plain forward pass of the library.
"""

import dataclasses
from typing import Any

import numpy as np
import torch

from workbench.core.types import Prompt, Request, Sampling
from workbench.models import logprobs
from workbench.models.per_token_logps import completion_stats
from workbench.models.policy import Policy
from workbench.rollouts.engine import Engine

TOLERANCE, TOLERANCE_HALF = 1e-4, 0.2
"""How far from the plain forward pass is too far, nats: the furthest token in float32, the mean token in lower precision."""
LIBRARY_ERRORS = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, NameError, ArithmeticError, ImportError
)  # fmt: skip
"""What the library raises for a model that it was not written for."""


class _NoText:
    """Stands in for the tokenizer: no text of the trial is read."""

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return ""


def quiet(policy: Policy) -> Policy:
    """The policy as the trial uses it."""
    return dataclasses.replace(policy, tokenizer=_NoText())


@torch.no_grad()
def problem_of(engine: Engine, policy: Policy) -> str:
    """Why this engine cannot sample from the policy; '' where its log-probabilities are those of a plain forward pass."""
    try:
        samples = _sample(engine, policy)
        plain = _plain(policy, samples)
    except torch.OutOfMemoryError:
        raise
    except LIBRARY_ERRORS as error:
        return (
            f"a trial ended with {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
        )
    return _distance(policy, np.concatenate([logp for _, _, logp in samples]), np.concatenate(plain))


@torch.no_grad()
def trainer_problem(engine: Engine, policy: Policy) -> str:
    """Why the update cannot be trusted with the policy; '' where what it reads of completions are the figures of a plain forward pass,
    and a token's figures do not depend on later tokens."""
    samples = _sample(engine, policy)
    plain = _plain(policy, samples)
    batch = logprobs.Sequences([prompt for prompt, _, _ in samples], [ids for _, ids, _ in samples])
    stats = completion_stats(policy.model, batch, Sampling(), policy.pad_id, 1024, logp_only=True)
    seen = stats.logp_B_T[batch.valid(policy.device)].cpu().numpy()
    if problem := _distance(policy, seen, np.concatenate(plain)):
        return problem
    first = [
        logprobs.logit_stats(
            policy.model(input_ids=torch.tensor([prompt], device=policy.device), use_cache=False).logits[
                :, -1
            ],
            torch.tensor([int(ids[0])], device=policy.device),
            Sampling(),
            logp_only=True,
        ).logp_N.item()
        for prompt, ids, _ in samples
    ]
    problem = _distance(policy, np.array(first), np.array([logp[0] for logp in plain]))
    return f"a token's probability depends on tokens after it: {problem}" if problem else ""


def _sample(engine: Engine, policy: Policy) -> list[tuple[tuple[int, ...], Any, Any]]:
    """(prompt, completion, the sampler's log-probabilities) of some made-up prompts of different lengths, two samples each."""
    random = np.random.default_rng(0)
    text = policy.model.config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None) or 0
    vocabulary = int(policy.model.get_input_embeddings().weight.shape[0])
    usable = np.setdiff1d(np.arange(vocabulary), [*policy.eos_ids, policy.pad_id])
    # Long enough to leave a window of the usual small test models; a real model's window is thousands of tokens.
    lengths = [3, 9, *([window + 2] if 0 < window <= 64 else [])]
    requests = [
        Request(
            Prompt("", token_ids=tuple(random.choice(usable, size=n).tolist()), id=str(n)),
            (3 * n, 3 * n + 1, 3 * n + 2),
        )
        for n in lengths
        if n + 5 <= policy.context
    ]
    groups = engine.generate(requests, Sampling(max_completion_length=5))
    return [
        (group.prompt.token_ids, rollout.token_ids, rollout.logprobs)
        for group in groups
        for rollout in group.rollouts
        if len(rollout.token_ids)
    ]


def _plain(policy: Policy, samples: list[tuple[tuple[int, ...], Any, Any]]) -> list[Any]:
    """(T,) log-probability of each sample's tokens by one forward pass over the sample alone, without cache, mask or padding."""
    plain = []
    for prompt, ids, _ in samples:
        row = torch.tensor([[*prompt, *ids.tolist()]], device=policy.device)
        logits = policy.model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
        target = row[0, len(prompt) :]
        plain.append(logprobs.logit_stats(logits, target, Sampling(), logp_only=True).logp_N.cpu().numpy())
    return plain


def _distance(policy: Policy, ours: Any, plain: Any) -> str:
    """'' where two sets of log-probabilities are equal within rounding, else how far they are apart."""
    apart = np.abs(ours.astype(np.float64) - plain.astype(np.float64))
    single = next(policy.model.parameters()).dtype in (torch.float32, torch.float64)
    worst = float(apart.max() if single else apart.mean()) if len(apart) else 0.0
    if worst <= (TOLERANCE if single else TOLERANCE_HALF):
        return ""
    return f"its log-probabilities are {worst:.2g} nats from a plain forward pass"
