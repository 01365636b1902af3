"""What one poll of the Live page answers: the run's state, and only what was recorded since the last poll.

In: the store, a run and the cursor of the answer before. Out: plain JSON values as the dashboard's routes
promise them.
"""

import hashlib
import re
import time
from typing import Any, NamedTuple

from workbench import launch
from workbench.core.errors import RunError
from workbench.core.glossary import ALARMS
from workbench.launch import RunState
from workbench.record.notes import Notes
from workbench.record.reader import Reader
from workbench.view.common.run_store import RunStore

Json = dict[str, Any]
WAITS = "waits for "
"""How a queued worker begins its reason, before the ids of the runs ahead of it."""
MUTE = "mute"
"""Kind of the notes that silence an alarm, by its name."""
CHECKED = tuple(
    f"heldout/{mode}/{name}"
    for mode in ("sampled", "greedy")
    for name in ("accuracy", "accuracy_low", "accuracy_high", "problems")
)
"""What a page shows of a held-out check; the record holds some sixty figures more."""
MOST_STEPS = 1000
"""More new steps than this are thinned: of each stretch, the steps with the lowest and the highest reward
stay."""
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,18})")


class Cursor(NamedTuple):
    """How far a page has read: the last row of steps and of events, and the alarms it knows."""

    row: int = 0
    event: int = 0
    alarms: int = 0

    def __str__(self) -> str:
        return f"{self.row}-{self.event}-{self.alarms}"

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The cursor of an earlier answer; the start for none. Raises RunError."""
        if not text:
            return cls()
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise RunError(
                f"since = {text[:40]!r} is no cursor. Give the cursor of the answer before, or none for all."
            )
        return cls(*map(int, found.groups()))


def delta(store: RunStore, run: str, since: str | None) -> Json:
    """The answer of `runs/RUN/delta`. Raises RunError for a cursor that none of our answers gave."""
    reader, cursor = store.reader(run), Cursor.parse(since)
    reset = False
    series = reader.series(cursor.row, keep=keep, checked=CHECKED)
    if series["forget_from"] is not None:
        # A resumed run has overtaken steps that this page still shows: it starts over.
        cursor, reset = Cursor(), True
        series = reader.series(keep=keep, checked=CHECKED)
    train = series["train"]
    steps = train.pop("step")
    events = reader.events(cursor.event)
    alarms = reader.alarms(open_only=True)
    muted = set(Notes(reader.folder).kept(MUTE)) if alarms else set()
    now = launch.state(reader.folder)
    told = [(alarm["id"], alarm["last_step"], alarm["level"], alarm["name"] in muted) for alarm in alarms]
    stamp = int.from_bytes(hashlib.sha256(repr(told).encode()).digest()[:7]) if told else 0
    return {
        "cursor": str(Cursor(series["cursor"], events[-1]["id"] if events else cursor.event, stamp)),
        "reset": reset,
        "now": time.time(),
        "status": {**status(now), "waits_for": waits_for(store, now)},
        "verdict": store.verdict(reader, now),
        "steps": steps,
        "metrics": {name: values for name, values in train.items() if not name.startswith("rewards/")},
        "metric_parts": {
            name.removeprefix("rewards/").removesuffix("/mean"): values
            for name, values in train.items()
            if name.startswith("rewards/") and name.endswith("/mean")
        },
        "thinned": max(1, round(series["count"] / len(steps))) if steps else 1,
        "checks": checks(series),
        "ribbon": ribbon(reader, cursor.row),
        "events": [event for event in events if event["kind"] != "groups_replaced"],  # long, and not shown
        "alarms": [alarm_row(alarm, alarm["name"] in muted) for alarm in by_weight(alarms)]
        if stamp != cursor.alarms or reset
        else None,
    }


def status(now: RunState) -> Json:
    """Where the run stands now."""
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


def waits_for(store: RunStore, now: RunState) -> list[Json]:
    """The runs that a queued one waits for, the holder of its device first. One of another runs folder has no link."""
    if now.state != "queued" or not now.reason.startswith(WAITS):
        return []
    found = []
    for id in now.reason.removeprefix(WAITS).split(", "):
        if " " in id:  # "the device": nobody is known
            continue
        try:
            found.append({"id": id, "name": store.folder(id).config().run_name or id, "here": True})
        except RunError:
            found.append({"id": id, "name": id, "here": False})
    return found


def checks(series: Json) -> list[Json]:
    """The new held-out checks, one entry a check and mode."""
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
    return sorted(found, key=lambda check: int(check["step"]))


def ribbon(reader: Reader, since: int) -> list[Json]:
    """The new columns of the ribbon, best group first: of each group its share right or mean reward, and the letter
    of its dead side (a row of cells would be sixteen lists a step)."""
    return [
        {
            "step": column["step"],
            "values": _shown(column["right"], column["reward"])[::-1],
            "dead": column["dead"][::-1],
        }
        for column in reader.ribbon(since)["steps"]
    ]


def _shown(right: list[float | None], reward: list[float | None]) -> list[float | None]:
    """Each group's share right, where nobody says what is right its mean reward."""
    if None not in right:
        return right
    return [mean if share is None else share for share, mean in zip(right, reward, strict=True)]


def by_weight(alarms: list[Json]) -> list[Json]:
    """The most pressing first, then the newest."""
    order = {"critical": 0, "warning": 1}
    return sorted(alarms, key=lambda alarm: (order.get(alarm["level"], 2), -alarm["since_step"]))


def alarm_row(alarm: Json, muted: bool) -> Json:
    """An open alarm as the page shows it."""
    figures = dict(alarm["evidence"])
    samples = figures.pop("samples", [])
    row = ALARMS.get(alarm["name"])
    return {
        "id": alarm["id"],
        "name": alarm["name"],
        "label": row.label if row else alarm["name"],
        "metric": row.metric if row else None,
        "condition": row.condition if row else None,
        "level": alarm["level"],
        "step": alarm["last_step"],
        "since": alarm["since_step"],
        "claim": alarm["claim"],
        "evidence": alarm["text"],
        "figures": figures,
        "samples": [sample for sample in samples if isinstance(sample, dict)],
        "remedies": alarm["remedies"],
        "muted": muted,
    }


def keep(steps: list[int], rewards: list[float | None] | None) -> list[int]:
    """Places of the steps to send: all, or per stretch the ones with the lowest and the highest reward,
    the ends included.

    A spike is never thinned away: the extremes of every stretch stay."""
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
