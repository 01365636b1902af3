"""What a model reads and what it generates: rendered prompts and fresh completions."""

from collections.abc import Mapping
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.core.types import Prompt, Request, Sampling, sample_seed
from workbench.prompts import task_of
from workbench.prompts.stream import PromptStream
from workbench.rewards.api.reward_input import plain
from workbench.worker.probes.context import ProbeContext

SHOWN_PROMPTS = 5
MOST_SAMPLES = 64
MOST_PROMPTS = 64


def prompts(context: ProbeContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """A few prompts as the model will read them, with their token counts, and the longest of all."""
    split = task_of(context.config).load(context.config)
    train, heldout = context.render(split.train), context.render(split.heldout)
    lengths = sorted(len(prompt.token_ids) for prompt in [*train, *heldout])
    longest = max(train, key=lambda prompt: len(prompt.token_ids))
    shown = [_prompt(prompt) for prompt in train[: int(args.get("count", SHOWN_PROMPTS))]]
    return {
        "prompts": shown,
        "longest": _prompt(longest),
        "train": len(train),
        "heldout": len(heldout),
        "tokens": {"min": lengths[0], "median": lengths[len(lengths) // 2], "max": lengths[-1]},
        "warnings": list(split.warnings),
    }


def sample(context: ProbeContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """`n` fresh completions of `prompt` (a question, rendered like the run's own), with `temperature`, `seed`,
    `max_completion_length`. `base`: of the model the run began with, where the worker has it as its reference."""
    question = str(args.get("prompt") or "").strip()
    if not question:
        raise WorkbenchError("The probe `sample` needs a prompt: the question as a person would write it.")
    count = min(MOST_SAMPLES, max(1, int(args.get("n", 1))))
    config, seed = context.config, int(args.get("seed", context.config.seed))
    [prompt] = context.render([Prompt(question, args.get("answer"))])
    sampling = Sampling(
        float(args.get("temperature", config.temperature)),
        config.top_p,
        config.top_k,
        config.min_p,
        int(args.get("max_completion_length", config.max_completion_length)),
    )
    request = Request(prompt, tuple(sample_seed(seed, -3, prompt.id, index) for index in range(count)))
    with context.sampler(base=bool(args.get("base"))) as engine:
        [group] = engine.generate(
            [request], sampling, lambda done, total: context.control.phase("sample", done, total)
        )
    return {
        "prompt": _prompt(prompt),
        "samples": [
            {
                "text": rollout.text,
                "length": rollout.length,
                "finish_reason": rollout.finish_reason,
                "seed": rollout.seed,
                "logprob_sum": float(rollout.logprobs.sum()),
            }
            for rollout in group.rollouts
        ],
    }


def fresh(context: ProbeContext, args: Mapping[str, Any]) -> dict[str, Any]:
    """`n` completions of each of the first `prompts` training prompts, as a run with these settings would sample them in its
    first step. For trying rewards on, so with every column that a reward may ask for."""
    config = context.config
    count = min(MOST_SAMPLES, max(1, int(args.get("n", config.num_generations))))
    train = task_of(config).load(config).train
    wanted = min(MOST_PROMPTS, len(train), max(1, int(args.get("prompts", config.prompts_per_step))))
    rendered = context.render(PromptStream(train, wanted, config.seed).at(0))
    requests = [
        Request(prompt, tuple(sample_seed(config.seed, 0, prompt.id, index) for index in range(count)))
        for prompt in rendered
    ]
    sampling = Sampling(
        config.temperature, config.top_p, config.top_k, config.min_p, config.max_completion_length
    )
    groups = context.engine.generate(
        requests, sampling, lambda done, total: context.control.phase("sample", done, total)
    )
    return {
        "groups": [
            {
                "prompt_id": group.prompt.id,
                "question": group.prompt.question,
                "text": group.prompt.text,
                "answer": group.prompt.answer,
                "columns": plain({**group.prompt.own_names, **group.prompt.columns}),
                "samples": [
                    {
                        "text": rollout.text,
                        "length": rollout.length,
                        "finish_reason": rollout.finish_reason,
                        "tokens": rollout.token_ids.tolist(),
                    }
                    for rollout in group.rollouts
                ],
            }
            for group in groups
        ]
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "question": prompt.question,
        "text": prompt.text,
        "answer": prompt.answer,
        "tokens": len(prompt.token_ids),
    }
