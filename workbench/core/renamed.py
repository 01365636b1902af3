"""Names that run folders of earlier versions still hold, and what they are called now.

A stored name that changes gets a row here: what reads config.json, run.db and checkpoints passes through these tables.
Columns of run.db are migrated instead (record/schema.py).
"""

from collections.abc import Mapping
from typing import Any

SETTINGS: dict[str, str] = {}
"""Settings of config.json and of a checkpoint's state.json."""
RUN_KINDS = {"bench": "probe"}
"""`kind` in config.json."""
EVENT_KINDS = {"held": "paused", "rewards_away": "rewards_unavailable"}
"""`kind` of rows in the table `events`."""


def keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same values under today's names; a value that has both names keeps today's."""
    return {names.get(name, name): value for name, value in values.items() if names.get(name) not in values}


def spellings(name: str, names: Mapping[str, str]) -> list[str]:
    """Every name under which `name` may have been stored, today's first."""
    return [name, *(former for former, now in names.items() if now == name)]
