"""Every metric and alarm in words, from glossary.toml and alarms.toml: meaning, formula, healthy range. Read by tooltips, docs, alarms.

In: the recorded name of a metric, such as `rewards/correct/mean`. Out: its `Metric`, or None for a user's own metric.
"""

import re
import tomllib
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

SECTIONS = {
    "reward": "Reward",
    "groups": "Groups and advantages",
    "samples": "Samples",
    "diversity": "Diversity",
    "policy": "Policy and drift",
    "update": "Update",
    "machine": "Time and record",
    "heldout": "Held-out evaluation",
}
_SLOT = re.compile(r"<(\w+)>")
SLOTS = {
    "side": ("right", "wrong"),
    "where": ("with", "without"),
    "sign": ("up", "down"),
    "p": ("p10", "p50", "p90"),
    "mode": ("sampled", "greedy"),
    "end": ("min", "max"),
    "which": ("min", "mean", "max"),
}
"""Values of a slot; other slots (names of rewards, styles, phases) take any text."""


class Metric(NamedTuple):
    """One metric in words. `name` may have slots, as in `rewards/<name>/mean`."""

    name: str
    label: str
    section: str
    unit: str
    meaning: str
    formula: str
    healthy: str
    high: str
    """What a high value means and what to do; '' where it means nothing."""
    low: str
    """The same for a low value."""
    trl: str
    """TRL's name for it: mostly the same; '' where TRL does not log it."""


def _load() -> dict[str, Metric]:
    table = tomllib.loads((resources.files(__package__) / "glossary.toml").read_text(encoding="utf-8"))
    return {name: Metric(name=name, trl=row.pop("trl", name), **row) for name, row in table.items()}


METRICS: dict[str, Metric] = _load()
"""By name or pattern with slots, in the order of the docs."""


class AlarmRow(NamedTuple):
    """One alarm in words. `condition` contains the numbers of `limits`, by which the alarm is judged."""

    name: str
    label: str
    metric: str
    condition: str
    cause: str
    limits: dict[str, float]


def _alarms() -> dict[str, AlarmRow]:
    table = tomllib.loads((resources.files(__package__) / "alarms.toml").read_text(encoding="utf-8"))
    found = {}
    for name, row in table.items():
        condition = re.sub(r"(?<=\d)%", " %", row.pop("condition").format(**row["limits"]))
        found[name] = AlarmRow(name=name, condition=condition, **row)
    return found


ALARMS: dict[str, AlarmRow] = _alarms()


@lru_cache(maxsize=4096)
def metric(name: str) -> Metric | None:
    """The entry of a recorded name, its slots filled in; None for a metric that is not the workbench's."""
    if name in METRICS and "<" not in name:
        return METRICS[name]
    for pattern, entry in METRICS.items():
        if "<" not in pattern:
            continue
        if found := _matcher(pattern).fullmatch(name):
            words = found.groupdict()
            fields = {
                field: _filled(value, words) for field, value in entry._asdict().items() if field != "name"
            }
            return Metric(name=name, **fields)
    return None


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> re.Pattern[str]:
    """Regular expression of a pattern. Free slots may contain slashes: a reward can be called path/to/file.py:name."""
    parts = enumerate(_SLOT.split(pattern))
    return re.compile(
        "".join(
            f"(?P<{part}>{'|'.join(SLOTS.get(part, ('.+',)))})" if i % 2 else re.escape(part)
            for i, part in parts
        )
    )


def _filled(text: str, words: dict[str, str]) -> str:
    for slot, word in words.items():
        text = text.replace(f"{{{slot}}}", word).replace(f"<{slot}>", word)
    return text
