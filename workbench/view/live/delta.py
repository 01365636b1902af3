"""What one poll of the Live page returns: the run's state, and only what was recorded since the last poll.

In: the runs root, a run and the cursor of the response before. Out: plain JSON values, as the dashboard's routes promise them.
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
from workbench.view.common import curves
from workbench.view.common.run_store import RunStore

Json = dict[str, Any]
WAITS = "waits for "
"""How a queued worker begins its reason, before the ids of the runs ahead of it."""
MUTE = "mute"
"""Kind of the notes that silence an alarm, by its name."""
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})-(\d{1,18})")


class Cursor(NamedTuple):
    """How far a page has read: the last row of steps and of events, and a fingerprint of the alarms it has."""

    row: int = 0
    event: int = 0
    alarms: int = 0

    def __str__(self) -> str:
        return f"{self.row}-{self.event}-{self.alarms}"

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The cursor of an earlier response; without one, the start. Raises RunError."""
        if not text:
            return cls()
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise RunError(
                f"since = {text[:40]!r} is no cursor. Give the cursor of the response before, or none for all."
            )
        return cls(*map(int, found.groups()))


def read_delta(store: RunStore, run: str, since: str | None) -> Json:
    """The response of `runs/RUN/delta`. Raises RunError for a cursor that no response of ours carried."""
    reader, cursor = store.reader(run), Cursor.parse(since)
    reset = False
    series = reader.series(cursor.row, keep=curves.thin, checked=curves.HELDOUT_METRICS)
    if series["forget_from"] is not None:
        # A resumed run has recorded again steps that this page still shows: it starts over.
        cursor, reset = Cursor(), True
        series = reader.series(keep=curves.thin, checked=curves.HELDOUT_METRICS)
    train = series["train"]
    steps = train.pop("step")
    events = reader.events(cursor.event)
    alarms = reader.alarms(open_only=True)
    muted = set(Notes(reader.folder).kept(MUTE)) if alarms else set()
    now = launch.state(reader.folder)
    fingerprint = _fingerprint(alarms, muted)
    return {
        "cursor": str(Cursor(series["cursor"], events[-1]["id"] if events else cursor.event, fingerprint)),
        "reset": reset,
        "now": time.time(),
        "status": {**curves.run_status(now), "waits_for": waits_for(store, now)},
        "verdict": store.verdict(reader, now),
        "steps": steps,
        "metrics": {name: values for name, values in train.items() if not name.startswith("rewards/")},
        "metric_parts": {
            name.removeprefix("rewards/").removesuffix("/mean"): values
            for name, values in train.items()
            if name.startswith("rewards/") and name.endswith("/mean")
        },
        "thinned": max(1, round(series["count"] / len(steps))) if steps else 1,
        "checks": curves.heldout_evaluations(series),
        "ribbon": ribbon(reader, cursor.row),
        "events": [event for event in events if event["kind"] != "groups_replaced"],  # long, and not shown
        "alarms": [alarm_row(alarm, alarm["name"] in muted) for alarm in most_pressing_first(alarms)]
        if fingerprint != cursor.alarms or reset
        else None,
    }


def _fingerprint(alarms: list[Json], muted: set[str]) -> int:
    """Changes whenever an open alarm appears, goes, is raised again, changes its level or is muted; 0 without alarms."""
    if not alarms:
        return 0
    state = [(alarm["id"], alarm["last_step"], alarm["level"], alarm["name"] in muted) for alarm in alarms]
    return int.from_bytes(hashlib.sha256(repr(state).encode()).digest()[:7])


def waits_for(store: RunStore, now: RunState) -> list[Json]:
    """The runs that a queued one waits for, the holder of its device first. A run of another runs folder has no link."""
    if now.state != "queued" or not now.reason.startswith(WAITS):
        return []
    found = []
    for id in now.reason.removeprefix(WAITS).split(", "):
        if " " in id:  # "the device": the holder is not known
            continue
        try:
            found.append({"id": id, "name": store.folder(id).config().run_name or id, "here": True})
        except RunError:
            found.append({"id": id, "name": id, "here": False})
    return found


def ribbon(reader: Reader, since: int) -> list[Json]:
    """The new columns of the ribbon, best group first: each group's pass rate or mean reward, and the letter of its dead side (one
    list a step, since one object per cell would be sixteen lists a step)."""
    return [
        {
            "step": column["step"],
            "values": _pass_rates(column["right"], column["reward"])[::-1],
            "dead": column["dead"][::-1],
        }
        for column in reader.ribbon(since)["steps"]
    ]


def _pass_rates(right: list[float | None], reward: list[float | None]) -> list[float | None]:
    """Each group's pass rate; its mean reward where correctness was not scored."""
    if None not in right:
        return right
    return [mean if share is None else share for share, mean in zip(right, reward, strict=True)]


def most_pressing_first(alarms: list[Json]) -> list[Json]:
    """Alarms by level, then the newest first."""
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
