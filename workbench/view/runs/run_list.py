"""The list of runs: one row a run, with its state, a small reward curve and its verdict.

In: the runs root. Out: plain JSON values, as the dashboard's routes promise them.
"""

import time
from typing import Any

from workbench.core.errors import RunError
from workbench.launch import RunState
from workbench.record.folder import left_out_sentence
from workbench.view.common.run_store import RunStore

Json = dict[str, Any]
SPARK = 60
"""Points of a row's small curve."""


def run_list(store: RunStore) -> Json:
    """Every training run as a row of the Runs table, newest first."""
    return {
        "now": time.time(),
        "runs": [row(store, state) for state in store.states()],
        "left_out": left_out_sentence(store.root),
    }


def row(store: RunStore, state: RunState) -> Json:
    """One run in the list. A folder that cannot be read is a row as well, with the reason under `damaged`."""
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
        base |= {name: reader.current_settings()[name] for name in ("beta", "learning_rate")}
        base["parent"] = reader.folder.about().get("parent")
        return base | _curve(store.series(reader)) | {"verdict": store.verdict(reader, state)}
    except RunError as error:
        return base | {"damaged": str(error)}


def _curve(series: Json) -> Json:
    """The reward curve and the latest held-out accuracies."""
    rewards = [value for value in series["train"]["reward"] if value is not None]
    latest: dict[str, float | None] = {}
    for mode in ("sampled", "greedy"):
        known = [value for value in series[mode][f"heldout/{mode}/accuracy"] if value is not None]
        latest[mode] = known[-1] if known else None
    return {"spark": spark(rewards), "heldout": latest}


def spark(values: list[float]) -> list[float]:
    """At most SPARK values, evenly spaced, the last one included."""
    if len(values) <= SPARK:
        return values
    return [values[round(i * (len(values) - 1) / (SPARK - 1))] for i in range(SPARK)]
