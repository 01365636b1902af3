"""Value of a token: the expected reward just before a token of a recorded completion, and just after each choice there.

In: a token position and a number of continuations. Out: the rewards of those continuations, which are Monte Carlo estimates
of the value. GRPO gives every token of a completion the same advantage; this shows which token earned it.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.core.errors import RunError, WorkbenchError
from workbench.core.types import Group, Prompt, Request, Rollout, Sampling, Score, sample_seed
from workbench.record import rollup
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import RewardSource, resolve
from workbench.worker.probes.context import ProbeContext

MOST_CONTINUATIONS = 256
MOST_SIBLING_TOKENS = 3
"""Other choices at the position, made by completions of the same group, that are continued too."""


def branch(context: ProbeContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """`n` continuations before token `tok` of a recorded completion, and after each choice that its group made there.

    `step`, `k`, `sample`, `tok` give the position; `run` names the folder where it is not the worker's own. The result holds
    `sides`: first the one before the token, then the completion's own choice, then those of its siblings.
    """
    folder = RunFolder(args["run"]) if args.get("run") else context.folder
    step, k, index, tok = (int(args[name]) for name in ("step", "k", "sample", "tok"))
    count = min(MOST_CONTINUATIONS, max(2, int(args.get("n", 16))))
    kind, mode = args.get("kind", "train"), args.get("mode")
    group = Reader(folder).group(step, k, kind, mode, arrays=True)
    own, prefix = _token_at(group, index, tok)
    choices = [own, *_sibling_tokens(group, index, tok, prefix)]
    [prompt] = context.render([Prompt(group["question"], group["answer"], group["columns"])])
    if group["prompt"] and prompt.text != group["prompt"]:
        raise RunError("The prompt reads differently today than it was recorded: was its template changed?")
    starts = [prefix, *([*prefix, token] for token in choices)]
    groups = _continue(context, prompt, starts, count, f"{prompt.id}/{step}/{index}/{tok}")
    context.control.phase("score")
    with RewardPool(
        _reward_sources(folder, context), timeout=context.config.reward_timeout, reward_clip=context.config.reward_clip,
        max_steps=context.config.steps, max_length=context.config.max_completion_length,
    ) as pool:  # fmt: skip
        scores = pool.score(groups, step)
    accuracy = rollup.accuracy_reward(folder.config())
    sides, at = [], 0
    for token, continued in zip([None, *choices], groups, strict=True):
        sides.append(_side(token, continued, scores[at : at + len(continued)], accuracy, context))
        at += len(continued)
    sample = group["samples"][index]
    return {
        "step": step, "k": k, "kind": kind, "mode": mode, "prompt_id": group["prompt_id"], "sample": index, "tok": tok,
        "n": count, "sides": sides, "advantage": sample["advantage"], "reward": sample["reward"],
        "reward_std": group["reward_std"], "length": sample["length"], "policy_step": args.get("policy_step"),
    }  # fmt: skip


def _token_at(group: Mapping[str, Any], index: int, tok: int) -> tuple[int, list[int]]:
    """The token at the position, and all before it. Raises RunError where there is none."""
    samples = group["samples"]
    if not 0 <= index < len(samples):
        raise RunError(f"sample = {index}: the group has the samples 0 to {len(samples) - 1}.")
    ids = samples[index]["token_ids"]
    if ids is None:
        raise RunError(
            "The tokens of this step were not kept (keep_token_steps). Branch in a step that has them."
        )
    if not 0 <= tok < len(ids):
        raise RunError(f"tok = {tok}: the sample has the tokens 0 to {len(ids) - 1}.")
    return ids[tok], ids[:tok]


def _sibling_tokens(group: Mapping[str, Any], index: int, tok: int, prefix: list[int]) -> list[int]:
    """What siblings with the same beginning chose instead, most frequent first."""
    own = group["samples"][index]["token_ids"][tok]
    chosen: dict[int, int] = {}
    for sample in group["samples"]:
        ids = sample["token_ids"]
        if len(ids) > tok and ids[:tok] == prefix and ids[tok] != own:
            chosen[ids[tok]] = chosen.get(ids[tok], 0) + 1
    return sorted(chosen, key=lambda token: (-chosen[token], token))[:MOST_SIBLING_TOKENS]


def _reward_sources(folder: RunFolder, context: ProbeContext) -> list[RewardSource]:
    """The exact code that the run was scored with."""
    saved = [RewardSource.of_record(one, folder.rewards) for one in folder.about()["rewards"]]
    return saved or list(resolve(folder.config().rewards, context.folder.rewards))


def _continue(
    context: ProbeContext, prompt: Prompt, starts: Sequence[list[int]], count: int, seed: str
) -> list[Group]:
    """`count` completions that begin with each start, those of one start a group. A start that is complete already is a
    group of one."""
    config, policy = context.config, context.policy
    limit = config.max_completion_length
    requests: dict[int, Request] = {}
    for number, start in enumerate(starts):
        if _is_ended(start, policy) or len(start) >= limit:
            continue
        extended = Prompt(
            prompt.question,
            prompt.answer,
            prompt.columns,
            prompt.text,
            (*prompt.token_ids, *start),
            prompt.id,
        )
        seeds = tuple(sample_seed(config.seed, -4, f"{seed}/{number}", i) for i in range(count))
        requests[number] = Request(extended, seeds)
    drawn: dict[int, Group] = {}
    total, done = count * len(requests), 0
    for number, request in requests.items():
        sampling = Sampling(
            config.temperature, config.top_p, config.top_k, config.min_p, limit - len(starts[number])
        )
        at = done
        [drawn[number]] = context.engine.generate(
            [request], sampling, lambda now, _, at=at: context.control.phase("branch", at + now, total)
        )
        done += count
    return [
        Group(prompt, tuple(_join(start, one, policy) for one in drawn[number].rollouts))
        if number in drawn
        else Group(prompt, (_join(start, None, policy),))
        for number, start in enumerate(starts)
    ]


def _is_ended(ids: list[int], policy: Any) -> bool:
    return bool(ids) and ids[-1] in policy.eos_ids


def _join(start: list[int], drawn: Rollout | None, policy: Any) -> Rollout:
    """The completion as a reward reads it: the start and what was sampled after it."""
    ids = [*start, *(drawn.token_ids.tolist() if drawn else [])]
    ended = _is_ended(ids, policy)
    text = policy.text_of(ids)
    return Rollout(
        token_ids=np.asarray(ids, np.int32),
        logprobs=np.zeros(len(ids), np.float32),
        text=text,
        finish_reason="stop" if ended else "length",
        engine=drawn.engine if drawn else "",
        seed=drawn.seed if drawn else 0,
    )


def _side(
    token: int | None, group: Group, scores: Sequence[Score], accuracy: str, context: ProbeContext
) -> dict[str, Any]:
    """The rewards of one start's continuations. `text` is that of its token, '' for the start before the token."""
    rewards = [score.reward for score in scores]
    right = [rollup.is_right(score, accuracy) for score in scores]
    text = ""
    if token is not None:
        raw = importlib.import_module("workbench.models.chat").token_text(context.tokenizer)(token)
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
    if all(reward is None for reward in rewards):
        reason = next(
            (reason for score in scores for reason in score.reasons.values()), "no reward gave a value"
        )
        raise WorkbenchError(f"No continuation could be scored: {reason}")
    return {
        "token": token,
        "text": text,
        "rewards": rewards,
        "right": None if all(one is None for one in right) else sum(one is True for one in right),
        "cut": sum(rollout.finish_reason == "length" for rollout in group.rollouts),
        "example": group.rollouts[0].text[-400:],
    }
