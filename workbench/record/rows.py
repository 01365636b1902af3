"""A `StepRecord` as rows of run.db: plain tuples in the order of the columns that `store` names."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from workbench.core.config import RunConfig
from workbench.core.types import StepRecord
from workbench.record import rollup

Row = tuple[Any, ...]
MAX_SUMMARY = 48
"""Groups in `group_summary_json`; of a step with more, as many quantiles."""
_LETTERS = {"": ".", "right": "r", "wrong": "w", "tied": "t"}


class Rows(NamedTuple):
    """All rows of one step; a sample comes with its group's index, a reward with its sample's."""

    step: Row
    step_json: Row
    metrics: dict[str, float]
    prompts: list[Row]
    groups: list[Row]
    samples: list[tuple[int, Row]]
    rewards: list[tuple[int, Row]]


def step_rows(
    record: StepRecord,
    config: RunConfig,
    started: float,
    attempt: int,
    numbers: rollup.SampleNumbers | None = None,
) -> Rows:
    """Every row of one step. Non-finite metrics are left out and counted in `record/nonfinite_dropped`."""
    accuracy = rollup.accuracy_reward(config, record)
    numbers = numbers or rollup.sample_numbers(record, accuracy)
    groups = rollup.group_numbers(record, numbers, config)
    metrics = {name: float(value) for name, value in record.metrics.items() if math.isfinite(value)}
    if lost := len(record.metrics) - len(metrics):
        metrics["record/nonfinite_dropped"] = float(lost)
    samples: list[tuple[int, Row]] = []
    rewards: list[tuple[int, Row]] = []
    i = 0
    for k, group in enumerate(record.groups):
        for rollout in group.rollouts:
            score = record.scores_B[i]
            samples.append(
                (
                    k,
                    (
                        rollout.length,
                        rollout.finish_reason,
                        number(score.reward),
                        _integer(numbers.right_B[i]),
                        _item(record.advantages_B, i),
                        number(numbers.logprob_sum_B[i]),
                        number(numbers.kl_B[i]),
                        number(numbers.kl_k1_sum_B[i]),
                        number(numbers.entropy_B[i]),
                        _item(record.gradient_share_B, i),
                        number(numbers.logprob_change_B[i]),
                        rollout.seed,
                        rollout.weights_version,
                        record.styles_B[i] if record.styles_B else None,
                        dumps(score.logs) if score.logs else None,
                        clean(rollout.text),
                    ),
                )
            )
            rewards.extend(
                (i, (name, number(value), clean(score.reasons.get(name, "")) or None))
                for name, value in score.values.items()
            )
            i += 1
    return Rows(
        step=(
            record.stage,
            record.step,
            record.kind,
            record.mode or "",
            attempt,
            started,
            metrics.get("step_time", sum(record.phases.values()) if record.phases else None),
        ),
        step_json=(dumps(record.phases), dumps(group_summary(groups)) if groups else None),
        metrics=metrics,
        prompts=[
            (
                group.prompt.id,
                clean(group.prompt.question),
                clean(group.prompt.text),
                None if group.prompt.answer is None else clean(group.prompt.answer),
                dumps({**group.prompt.own_names, **group.prompt.columns}),
            )
            for group in record.groups
        ],
        groups=[
            (
                group.prompt.id,
                found.size,
                found.scored,
                found.right,
                number(found.reward_mean),
                number(found.reward_std),
                number(found.gradient_share),
                found.zero_std,
            )
            for group, found in zip(record.groups, groups, strict=True)
        ],
        samples=samples,
        rewards=rewards,
    )


def group_summary(groups: list[rollup.GroupNumbers]) -> dict[str, Any]:
    """Share right and mean reward of each group, worst first, and its letter: r all right, w all wrong, t tied,
    `.` rewards differ. One column of the ribbon."""
    order = sorted(
        groups,
        key=lambda group: (_share(group), group.reward_mean if group.reward_mean is not None else -math.inf),
    )
    if len(order) > MAX_SUMMARY:
        order = [order[round(j * (len(order) - 1) / (MAX_SUMMARY - 1))] for j in range(MAX_SUMMARY)]
    return {
        "groups": len(groups),
        "right": [None if group.right is None else round(_share(group), 4) for group in order],
        "reward": [None if group.reward_mean is None else round(group.reward_mean, 4) for group in order],
        "dead": "".join(_LETTERS[group.zero_std] for group in order),
    }


def event_row(kind: str, data: Mapping[str, Any] | None, step: int | None) -> Row:
    """(time, step, kind, data) of an event, timed now."""
    return time.time(), step, kind, dumps(data or {})


def clean(text: str) -> str:
    """`text` as SQLite stores it: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def dumps(value: Any) -> str:
    """JSON without NaN (null instead); what JSON does not know is written as text."""
    try:
        return clean(
            json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        )
    except (ValueError, TypeError):
        return json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"), default=_plain)


def number(value: float | None) -> float | None:
    """A float for SQLite, NULL where it is absent or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def _share(group: rollup.GroupNumbers) -> float:
    return -1.0 if group.right is None else group.right / max(1, group.scored)


def _item(values_B: NDArray[np.float64] | None, i: int) -> float | None:
    return None if values_B is None else number(float(values_B[i]))


def _integer(value: float) -> int | None:
    return None if not math.isfinite(value) else int(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseModel):  # a reward of the settings
        return value.model_dump(mode="json")
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(name)): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    return clean(value) if isinstance(value, str) else value
