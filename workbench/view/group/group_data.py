"""One group: its samples with rewards and advantages, what the advantages were divided by, and the advantages that other divisors
would have given.

In: a reader. Out: plain JSON values, as the dashboard's routes promise them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.algorithm import advantages
from workbench.core.config import RunConfig
from workbench.core.types import EvalMode, GroupKind
from workbench.core.variants import SCALINGS
from workbench.diagnose.style import final_answer
from workbench.record import rating
from workbench.record.reader import Reader
from workbench.view.common.visits import visit_summary

Json = dict[str, Any]
Floats = NDArray[np.float64]
_TOKEN_ARRAYS = {
    "sampler": "sampler_logp",
    "policy": "policy_logp",
    "reference": "reference_logp",
    "after": "after_logp",
    "entropy": "entropy_T",
    "weight": "weight",
}
"""Keys of a sample's token arrays, and what the record calls them."""


def group_details(
    reader: Reader,
    step: int,
    k: int,
    kind: GroupKind = "train",
    mode: EvalMode | None = None,
    tokens: bool = False,
) -> Json:
    """Group `k` of a step with all its samples, `tokens` with their token arrays too; and the other visits of its prompt. Raises
    RunError for a group that is not recorded."""
    found = reader.group(step, k, kind, mode, arrays=tokens)
    config = reader.config
    found["k"] = found.pop("group")
    weights = {spec.name.rpartition(":")[2]: spec.weight if spec.enabled else 0.0 for spec in config.rewards}
    ratings = rating.ratings_of_group(reader, found)
    found["samples"] = [
        {**_sample(sample, weights), **rated} for sample, rated in zip(found["samples"], ratings, strict=True)
    ]
    scaled: Json = {"divisor": None, "batch_std": None, "whatif": None}  # an evaluation has no advantages
    if kind == "train":
        update_tokens, scaled = _divisors(reader, step, k, config)
        for sample in found["samples"]:
            if sample["tokens"] is not None:
                # The recorded weight times this is A where every token counts alike and nothing is clipped.
                sample["tokens"]["weight_scale"] = update_tokens
    visits = [visit_summary(visit) for visit in reader.prompt_history(found["prompt_id"], per_visit=0)]
    return {**found, **scaled, "visits": visits}


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


def _divisors(reader: Reader, step: int, k: int, config: RunConfig) -> tuple[float, Json]:
    """(completion tokens of one update; what the group's centred rewards were divided by, and the advantages that each other
    scaling would have given, in sample order)."""
    rows = sorted(reader.groups(step), key=lambda row: int(row["k"]))
    dots = [dot for row in rows for dot in sorted(row["dots"], key=lambda dot: int(dot["i"]))]
    rewards_B = np.array([np.nan if dot["reward"] is None else dot["reward"] for dot in dots], dtype=float)
    ids_B = np.repeat([row["k"] for row in rows], [row["n"] for row in rows])
    here_B = ids_B == k
    batch_std = _std(rewards_B, config)
    used = {"group": _std(rewards_B[here_B], config), "batch": batch_std, "none": None}[config.scale_rewards]
    scalings = {scaling.name: scaling.settings for scaling in SCALINGS if "scale_rewards" in scaling.settings}
    others = {
        name: _advantages(rewards_B, ids_B, config, settings)[here_B] for name, settings in scalings.items()
    }
    return sum(dot["length"] for dot in dots) / config.steps_per_generation, {
        "whatif": {
            name: [None if np.isnan(value) else float(value) for value in values]
            for name, values in others.items()
        },
        "batch_std": batch_std,
        "divisor": {
            "kind": config.scale_rewards,
            "std": config.advantage_std,
            "value": used,
            "eps": config.advantage_eps,
            "baseline": config.advantage_baseline,
            "aggregation": config.multi_objective_aggregation,
        },
    }


def _advantages(rewards_B: Floats, ids_B: NDArray[np.int64], config: RunConfig, settings: Json) -> Floats:
    """Advantages (B,) from total rewards, with the run's settings but for these."""
    found = advantages.compute(
        rewards_B,
        ids_B,
        scale=settings["scale_rewards"],
        std=config.advantage_std,
        eps=config.advantage_eps,
        baseline=settings.get("advantage_baseline", config.advantage_baseline),
    )
    return np.asarray(found.advantages_B, dtype=np.float64)


def _std(rewards_B: Floats, config: RunConfig) -> float | None:
    known = rewards_B[np.isfinite(rewards_B)]
    ddof = 1 if config.advantage_std == "sample" else 0
    return float(known.std(ddof=ddof)) if len(known) > ddof else None
