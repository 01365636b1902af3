"""One group under the lens, and one prompt over time: the answers, what was asked of each, and what other
divisors would have asked.

In: a reader. Out: plain JSON values as the dashboard's routes promise them.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.core.types import EvalMode, GroupKind
from workbench.diagnose.style import final_answer
from workbench.record import rating
from workbench.record.reader import Reader
from workbench.view.common.run_data import newest

Json = dict[str, Any]
CUT = 2000
"""Characters of an answer that a timeline shows."""
_TOKEN_ARRAYS = {
    "sampler": "sampler_logp",
    "policy": "policy_logp",
    "reference": "reference_logp",
    "after": "after_logp",
    "entropy": "entropy_T",
    "weight": "weight",
}


def group(
    reader: Reader, number: int | None, k: int, kind: GroupKind, mode: EvalMode | None, tokens: bool
) -> Json:
    """One group whole, with the divisor of its advantages, other divisors beside it, and its prompt's other
    visits. `number` None: of the newest step. Raises RunError."""
    number = newest(reader, kind) if number is None else number
    found = reader.group(number, k, kind, mode, arrays=tokens)
    config = reader.config
    found["k"] = found.pop("group")
    weights = {spec.name.rpartition(":")[2]: spec.weight if spec.enabled else 0.0 for spec in config.rewards}
    said = rating.of_group(reader, found)
    found["samples"] = [
        {**_sample(sample, weights), **about} for sample, about in zip(found["samples"], said, strict=True)
    ]
    asks = (
        _whatif(reader, number, k, config)
        if kind == "train"
        else {"divisor": None, "batch_std": None, "whatif": None}
    )
    tokens_of_update = asks.pop("tokens_of_update", None)
    for sample in found["samples"]:
        if sample["tokens"] is not None:
            # The recorded weight times this is A where every token counts alike and nothing is clipped.
            sample["tokens"]["weight_scale"] = tokens_of_update
    return {**found, **asks, "visits": visits(reader, found["prompt_id"])}


def _sample(sample: Json, weights: dict[str, float]) -> Json:
    ids, texts = sample.pop("token_ids"), sample.pop("tokens", None)
    arrays = {short: sample.pop(name, None) for short, name in _TOKEN_ARRAYS.items() if name in sample}
    return {
        **sample,
        "index": sample.pop("i"),
        "said": final_answer(sample["text"]),
        "weights": {name: weights.get(name, 0.0) for name in sample["rewards"]},
        "tokens": {"text": texts, "ids": ids, **arrays} if texts is not None else None,
    }


def _whatif(reader: Reader, number: int, k: int, config: RunConfig) -> Json:
    """By what this group's deviations were divided, and the advantages that each other choice would have
    given it."""
    rows = sorted(reader.groups(number), key=lambda row: int(row["k"]))
    rewards_B = np.array(
        [_nan(dot["reward"]) for row in rows for dot in sorted(row["dots"], key=lambda dot: int(dot["i"]))]
    )
    ids_B = np.repeat([row["k"] for row in rows], [row["n"] for row in rows])
    here_B = ids_B == k
    asked = {scale: _ask(rewards_B, ids_B, config, scale)[here_B] for scale in ("group", "batch", "none")}
    asked["leave_one_out"] = _ask(rewards_B, ids_B, config, "none", "leave_one_out")[here_B]
    batch = _std(rewards_B, config)
    value = {"group": _std(rewards_B[here_B], config), "batch": batch, "none": None}[config.scale_rewards]
    return {
        "whatif": {
            name: [None if np.isnan(value) else float(value) for value in values]
            for name, values in asked.items()
        },
        "batch_std": batch,
        "tokens_of_update": sum(dot["length"] for row in rows for dot in row["dots"])
        / config.steps_per_generation,
        "divisor": {
            "kind": config.scale_rewards,
            "std": config.advantage_std,
            "value": value,
            "eps": config.advantage_eps,
            "baseline": config.advantage_baseline,
            "aggregation": config.multi_objective_aggregation,
        },
    }


def _ask(
    rewards_B: NDArray[np.float64],
    ids_B: NDArray[np.int64],
    config: RunConfig,
    scale: Any,
    baseline: Any = None,
) -> NDArray[np.float64]:
    asked = advantages.compute(
        rewards_B,
        ids_B,
        scale=scale,
        std=config.advantage_std,
        eps=config.advantage_eps,
        baseline=baseline or config.advantage_baseline,
    )
    return np.asarray(asked.advantages_B, dtype=np.float64)


def _std(rewards_B: NDArray[np.float64], config: RunConfig) -> float | None:
    known = rewards_B[np.isfinite(rewards_B)]
    ddof = 1 if config.advantage_std == "sample" else 0
    return float(known.std(ddof=ddof)) if len(known) > ddof else None


def visits(reader: Reader, prompt_id: str) -> list[Json]:
    """When the prompt was asked, oldest first, and how it went."""
    return [
        {
            **{
                name: visit[name]
                for name in ("step", "kind", "mode", "k", "n", "reward_mean", "reward_std", "dead")
            },
            "pass_rate": _share(visit),
        }
        for visit in reader.prompt_history(prompt_id, per_visit=0)
    ]


def prompt(reader: Reader, prompt_id: str) -> Json:
    """One prompt over time, training and checks, oldest first. Raises RunError for a prompt that this run
    never asked."""
    history = reader.prompt_history(prompt_id)
    if not history:
        raise RunError(f"This run never asked the prompt {prompt_id[:40]!r}.")
    first = reader.group(history[0]["step"], history[0]["k"], history[0]["kind"], history[0]["mode"] or None)
    return {
        "prompt_id": prompt_id,
        "question": first["question"],
        "answer": first["answer"],
        "prompt": first["prompt"],
        "visits": [_visit(visit) for visit in history],
    }


def _visit(visit: Json) -> Json:
    samples = visit["samples"]
    ranked = sorted(
        (sample for sample in samples if sample["reward"] is not None),
        key=lambda sample: (-sample["reward"], sample["length"]),
    )
    chosen = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    return {
        **{
            name: visit[name]
            for name in ("step", "kind", "mode", "k", "n", "reward_mean", "reward_std", "dead")
        },
        "pass_rate": _share(visit),
        "answers": _answers(samples),
        "length_mean": _mean([sample["length"] for sample in samples]),
        "entropy_mean": _mean([sample["entropy"] for sample in samples]),
        **{name: _short(ranked[place]) if ranked else None for name, place in chosen.items()},
    }


def _answers(samples: Sequence[Json]) -> list[list[Any]]:
    """[said, how many said it, whether it is right], most frequent first."""
    said = [final_answer(sample["text"]) for sample in samples]
    right = {answer: sample["right"] for answer, sample in zip(said, samples, strict=True)}
    return [[answer, count, right[answer]] for answer, count in Counter(said).most_common()]


def _short(sample: Json) -> Json:
    return {
        "index": sample["i"],
        "text": sample["text"][:CUT],
        "reward": sample["reward"],
        "right": sample["right"],
        "length": sample["length"],
    }


def _share(visit: Json) -> float | None:
    return None if visit["right"] is None else visit["right"] / max(1, visit["n"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
