"""Curves of a run as several pages draw them: which steps to send, held-out evaluations with their intervals, the run's status.

In: what a reader or the launcher returns. Out: plain JSON values, as the dashboard's routes promise them.
"""

from collections.abc import Sequence
from typing import Any

from workbench.launch import RunState

Json = dict[str, Any]
HELDOUT_METRICS = tuple(
    f"heldout/{mode}/{name}"
    for mode in ("sampled", "greedy")
    for name in ("accuracy", "accuracy_low", "accuracy_high", "problems")
)
"""What a page shows of a held-out evaluation; the record holds some sixty figures more."""
MOST_STEPS = 1000
"""Longer series are thinned to at most this many steps."""


def thin(steps: Sequence[int], rewards: Sequence[float | None] | None) -> list[int]:
    """Indices of the steps to send: all of them, or per stretch those with the lowest and the highest reward, first and last step
    included. So a spike is never thinned away."""
    count = len(steps)
    if count <= MOST_STEPS:
        return list(range(count))
    stretches = MOST_STEPS // 2 - 1
    chosen = {0, count - 1}
    for stretch in range(stretches):
        inside = range(stretch * count // stretches, (stretch + 1) * count // stretches)
        known = [i for i in inside if rewards is not None and rewards[i] is not None]
        if not known or rewards is None:
            chosen.add(inside[0])
            continue
        chosen.add(min(known, key=lambda i: rewards[i] or 0.0))
        chosen.add(max(known, key=lambda i: rewards[i] or 0.0))
    return sorted(chosen)


def heldout_evaluations(series: Json) -> list[Json]:
    """One entry for each held-out evaluation and mode in `Reader.series`, by step."""
    found = []
    for mode in ("sampled", "greedy"):
        columns = series[mode]
        for i, step in enumerate(columns["step"]):
            metrics = {
                name: values[i]
                for name, values in columns.items()
                if name != "step" and values[i] is not None
            }
            found.append(
                {"step": step, "mode": mode, "metrics": metrics, "n": metrics.get(f"heldout/{mode}/problems")}
            )
    return sorted(found, key=lambda evaluation: int(evaluation["step"]))


def run_status(now: RunState) -> Json:
    """State, phase and progress of a run now, with the last lines of its log."""
    return {
        "state": now.state,
        "stalled": now.stalled or None,
        "reason": now.reason or None,
        "phase": now.phase or None,
        "phase_done": now.phase_done,
        "phase_total": now.phase_total,
        "step": now.step,
        "steps": now.steps,
        "started": now.started,
        "ended": now.ended,
        "eta": now.eta,
        "heartbeat": now.heartbeat,
        "until": now.until,
        "seconds_per_step": now.step_seconds,
        "device": now.device,
        "alive": now.alive,
        "over": now.over,
        "log": list(now.log[-10:]),
    }
