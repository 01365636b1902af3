"""Credit at a token: what an answer is worth just before a token was drawn, and just after each choice there.

In: a place in a recorded answer and a number of continuations. Out: their rewards, as values by Monte Carlo. GRPO
gives every token of an answer the same advantage; this says which token earned it.
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
OTHERS = 3
"""Choices of siblings that are followed beside the answer's own."""


def branch(context: ProbeContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """`n` continuations before token `tok` of a recorded answer, and after each choice that the group made there.

    `step`, `k`, `sample`, `tok` say where; `run` names the folder where it is not the worker's own. The result holds
    `sides`: first the one before the token, then the answer's own choice, then its siblings'.
    """
    folder = RunFolder(args["run"]) if args.get("run") else context.folder
    step, k, index, tok = (int(args[name]) for name in ("step", "k", "sample", "tok"))
    count = min(MOST_CONTINUATIONS, max(2, int(args.get("n", 16))))
    kind, mode = args.get("kind", "train"), args.get("mode")
    group = Reader(folder).group(step, k, kind, mode, arrays=True)
    own, prefix = _place(group, index, tok)
    ways = [own, *_others(group, index, tok, prefix)]
    [prompt] = context.render([Prompt(group["question"], group["answer"], group["columns"])])
    if group["prompt"] and prompt.text != group["prompt"]:
        raise RunError("The prompt reads differently today than it was recorded: was its template changed?")
    starts = [prefix, *([*prefix, way] for way in ways)]
    seed = f"{prompt.id}/{step}/{index}/{tok}"
    found = _continued(context, prompt, starts, count, seed)
    context.control.phase("score")
    with RewardPool(
        _sources(folder, context), timeout=context.config.reward_timeout, reward_clip=context.config.reward_clip,
        max_steps=context.config.steps, max_length=context.config.max_completion_length,
    ) as pool:  # fmt: skip
        scores = pool.score(found, step)
    accuracy = rollup.accuracy_reward(folder.config())
    sides, at = [], 0
    for way, one in zip([None, *ways], found, strict=True):
        sides.append(_side(way, one, scores[at : at + len(one)], accuracy, context))
        at += len(one)
    sample = group["samples"][index]
    return {
        "step": step, "k": k, "kind": kind, "mode": mode, "prompt_id": group["prompt_id"], "sample": index, "tok": tok,
        "n": count, "sides": sides, "advantage": sample["advantage"], "reward": sample["reward"],
        "reward_std": group["reward_std"], "length": sample["length"], "policy_step": args.get("policy_step"),
    }  # fmt: skip


def _place(group: Mapping[str, Any], index: int, tok: int) -> tuple[int, list[int]]:
    """The token there, and all before it. Raises RunError where that is no place."""
    samples = group["samples"]
    if not 0 <= index < len(samples):
        raise RunError(f"sample = {index}: the group has the answers 0 to {len(samples) - 1}.")
    ids = samples[index]["token_ids"]
    if ids is None:
        raise RunError(
            "The tokens of this step were not kept (keep_token_steps). Branch in a step that has them."
        )
    if not 0 <= tok < len(ids):
        raise RunError(f"tok = {tok}: the answer has the tokens 0 to {len(ids) - 1}.")
    return ids[tok], ids[:tok]


def _others(group: Mapping[str, Any], index: int, tok: int, prefix: list[int]) -> list[int]:
    """What siblings with the same beginning chose instead, most frequent first."""
    own = group["samples"][index]["token_ids"][tok]
    chosen: dict[int, int] = {}
    for sample in group["samples"]:
        ids = sample["token_ids"]
        if len(ids) > tok and ids[:tok] == prefix and ids[tok] != own:
            chosen[ids[tok]] = chosen.get(ids[tok], 0) + 1
    return sorted(chosen, key=lambda token: (-chosen[token], token))[:OTHERS]


def _sources(folder: RunFolder, context: ProbeContext) -> list[RewardSource]:
    """The exact code that the run scored with."""
    saved = [RewardSource.of_record(one, folder.rewards) for one in folder.about()["rewards"]]
    return saved or list(resolve(folder.config().rewards, context.folder.rewards))


def _continued(
    context: ProbeContext, prompt: Prompt, starts: Sequence[list[int]], count: int, seed: str
) -> list[Group]:
    """Whole answers, those of one start a group. A start that is over already is one answer."""
    config, policy = context.config, context.policy
    most = config.max_completion_length
    requests: dict[int, Request] = {}
    for place, start in enumerate(starts):
        if _over(start, policy) or len(start) >= most:
            continue
        grown = Prompt(
            prompt.question,
            prompt.answer,
            prompt.columns,
            prompt.text,
            (*prompt.token_ids, *start),
            prompt.id,
        )
        seeds = tuple(sample_seed(config.seed, -4, f"{seed}/{place}", i) for i in range(count))
        requests[place] = Request(grown, seeds)
    drawn: dict[int, Group] = {}
    total, done = count * len(requests), 0
    for place, request in requests.items():
        sampling = Sampling(
            config.temperature, config.top_p, config.top_k, config.min_p, most - len(starts[place])
        )
        at = done
        [drawn[place]] = context.engine.generate(
            [request], sampling, lambda now, _, at=at: context.control.phase("branch", at + now, total)
        )
        done += count
    return [
        Group(prompt, tuple(_whole(start, one, policy) for one in drawn[place].rollouts))
        if place in drawn
        else Group(prompt, (_whole(start, None, policy),))
        for place, start in enumerate(starts)
    ]


def _over(start: list[int], policy: Any) -> bool:
    return bool(start) and start[-1] in policy.eos_ids


def _whole(start: list[int], drawn: Rollout | None, policy: Any) -> Rollout:
    """The answer as a reward reads it: the beginning and what was drawn after it."""
    ids = [*start, *(drawn.token_ids.tolist() if drawn else [])]
    stopped = _over(ids, policy)
    text = policy.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
    return Rollout(
        token_ids=np.asarray(ids, np.int32),
        logprobs=np.zeros(len(ids), np.float32),
        text=text,
        finish_reason="stop" if stopped else "length",
        engine=drawn.engine if drawn else "",
        seed=drawn.seed if drawn else 0,
    )


def _side(
    token: int | None, group: Group, scores: Sequence[Score], accuracy: str, context: ProbeContext
) -> dict[str, Any]:
    """The rewards of one start's continuations. `text` is that of its token, '' before it."""
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
