"""One step's groups, as Live and the Prompt view list them.

In: a reader. Out: plain JSON values, as the dashboard's routes promise them.
"""

from typing import Any

from workbench.core.types import EvalMode, GroupKind
from workbench.record.reader import Reader

Json = dict[str, Any]


def step_groups(reader: Reader, step: int, kind: GroupKind = "train", mode: EvalMode | None = None) -> Json:
    """The groups of a step by their share of the gradient, largest first and dead groups last, with the seconds of its phases.
    Raises RunError for a step that is not recorded."""
    groups = reader.groups(step, kind, mode)
    for group in groups:
        group["samples"] = [{"index": dot.pop("i"), **dot} for dot in group.pop("dots")]
    groups.sort(key=lambda group: bool(group["dead"]))  # stable: the order by share stays
    phases = (
        next((phase for phase in reader.phases(1) if phase["step"] == step), {}) if kind == "train" else {}
    )
    return {
        "step": step,
        "kind": kind,
        "mode": mode,
        "groups": groups,
        "phases": {k: v for k, v in phases.items() if k != "step"},
    }
