"""What the reader asks once: a run's header, one step's groups, the list of runs, the log.

In: a reader. Out: plain JSON values as the dashboard's routes promise them.
"""

import time
from typing import Any

from workbench.core import estimate
from workbench.core.config import RunConfig, settings
from workbench.core.errors import ModelError, RunError
from workbench.core.types import EvalMode, GroupKind
from workbench.diagnose.text import R1_WORDS
from workbench.launch import RunState
from workbench.record import rollup
from workbench.record.reader import Reader
from workbench.rewards.builtin.catalogue import REWARDS
from workbench.view.common.run_store import RunStore

Json = dict[str, Any]
SPARK = 60
"""Points of a small curve."""


def header(reader: Reader) -> Json:
    """What does not change while a run goes on, but for the settings that people changed."""
    about = reader.folder.about()
    config = reader.config
    now = reader.live()
    defaults = {info.name: info.default for info in settings()}
    values = config.model_dump(mode="json")
    return {
        "id": reader.folder.id,
        "name": config.run_name,
        "config": values,
        "changed": {name: value for name, value in values.items() if getattr(config, name) != defaults[name]},
        "model": model(config),
        "rewards": _rewards(about, config),
        "accuracy_reward": rollup.accuracy_reward(config),
        "parent": about.get("parent"),
        "versions": about.get("versions", {}),
        "hardware": about.get("hardware", {}),
        "seed": config.seed,
        "created": about.get("created"),
        "steps": config.steps,
        "prompts_per_step": config.prompts_per_step,
        "num_generations": config.num_generations,
        "reward_range": reward_range(config),
        "binary": binary(config),
        "live_settings": [
            {"name": info.name, "label": info.label, "value": now[info.name]}
            for info in settings()
            if info.live and info.name != "rewards"
        ],
        "live_rewards": now["rewards"],
        "reflection_words": list(R1_WORDS),
        "notice": reader.notice,
        "search": True,
    }


def model(config: RunConfig) -> Json:
    """Name and size of the base model, as far as this machine knows it."""
    try:
        facts = estimate.facts(config.model)
    except ModelError:
        facts = None
    return {
        "name": config.model,
        "parameters": facts.parameters if facts else None,
        "bytes": facts.stored_bytes if facts else None,
        "architecture": facts.architecture if facts else None,
    }


def reward_range(config: RunConfig) -> tuple[float, float]:
    """The least and the most that an answer can earn. A reward that does not say its own range is taken to
    lie between 0 and 1."""
    low = high = 0.0
    for spec in config.rewards:
        if spec.enabled:
            ends = REWARDS[spec.name].range if spec.name in REWARDS else (0.0, 1.0)
            low += min(spec.weight * end for end in ends)
            high += max(spec.weight * end for end in ends)
    return low, high


def binary(config: RunConfig) -> bool:
    """Whether an answer can only earn nothing or everything, so that the words right and wrong fit."""
    counting = [spec for spec in config.rewards if spec.enabled and spec.weight]
    return len(counting) == 1 and counting[0].name == rollup.accuracy_reward(config) == "correct"


def step(reader: Reader, number: int | None, kind: GroupKind, mode: EvalMode | None) -> Json:
    """One step's groups, biggest share of the gradient first. `number` None: the newest. Raises RunError."""
    number = newest(reader, kind) if number is None else number
    groups = reader.groups(number, kind, mode)
    for group in groups:
        group["samples"] = [{"index": dot.pop("i"), **dot} for dot in group.pop("dots")]
    groups.sort(key=lambda group: bool(group["dead"]))  # stable: dead groups last, the order by share kept
    phases = (
        next((phase for phase in reader.phases(1) if phase["step"] == number), {}) if kind == "train" else {}
    )
    return {
        "step": number,
        "kind": kind,
        "mode": mode,
        "groups": groups,
        "phases": {k: v for k, v in phases.items() if k != "step"},
    }


def runs(store: RunStore) -> Json:
    """Every training run as a row of the Runs table, newest first."""
    return {"now": time.time(), "runs": [row(store, state) for state in store.states()]}


def row(store: RunStore, state: RunState) -> Json:
    """One run in the list. A folder that cannot be read is a row as well, and says why."""
    base: Json = {
        "id": state.id,
        "name": None,
        "kind": state.kind,
        "state": state.state,
        "stalled": state.stalled or None,
        "reason": state.reason or None,
        "phase": state.phase or None,
        "step": state.step,
        "steps": state.steps or None,
        "started": state.started,
        "ended": state.ended,
        "eta": state.eta,
        "heartbeat": state.heartbeat,
        "alive": state.alive,
        "over": state.over,
        "model": None,
        "task": None,
        "beta": None,
        "learning_rate": None,
        "parent": None,
        "damaged": state.reason if state.state == "damaged" else None,
        "spark": [],
        "verdict": None,
        "heldout": {"sampled": None, "greedy": None},
    }
    if state.state == "damaged":
        return base
    try:
        reader = store.reader(state.id)
        config = reader.config
        base |= {"name": config.run_name, "model": config.model, "task": config.task, "steps": config.steps}
        base |= {name: reader.live()[name] for name in ("beta", "learning_rate")}
        base["parent"] = reader.folder.about().get("parent")
        return base | _curve(store.series(reader)) | {"verdict": store.verdict(reader, state)}
    except RunError as error:
        return base | {"damaged": str(error)}


def _curve(series: Json) -> Json:
    """What a row shows of a run's record."""
    rewards = [value for value in series["train"]["reward"] if value is not None]
    last: dict[str, float | None] = {}
    for mode in ("sampled", "greedy"):
        known = [value for value in series[mode][f"heldout/{mode}/accuracy"] if value is not None]
        last[mode] = known[-1] if known else None
    return {"spark": spark(rewards), "heldout": last}


def spark(values: list[float]) -> list[float]:
    """At most SPARK values, evenly taken, the last one included."""
    if len(values) <= SPARK:
        return values
    return [values[round(i * (len(values) - 1) / (SPARK - 1))] for i in range(SPARK)]


def log(reader: Reader, lines: int) -> Json:
    """The end of the worker's log."""
    path = reader.folder.log_path
    return {
        "lines": reader.folder.log_tail(max(1, min(lines, 2000))),
        "size": path.stat().st_size if path.exists() else 0,
    }


def newest(reader: Reader, kind: GroupKind) -> int:
    """The newest recorded step. Raises RunError before the first."""
    found = reader.last_step(kind)
    if found is None:
        raise RunError("Nothing is recorded yet: the first step is still under way.")
    return found


def _rewards(about: Json, config: RunConfig) -> list[Json]:
    sources = {source.get("name"): source for source in about.get("rewards", [])}
    return [
        {
            "name": spec.name,
            "weight": spec.weight,
            "enabled": spec.enabled,
            "source_hash": sources.get(spec.name, {}).get("sha"),
        }
        for spec in config.rewards
    ]
