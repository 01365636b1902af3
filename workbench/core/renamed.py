"""Names that run folders of earlier versions hold, and today's: former name -> today's name.

A stored name that changes gets a row here; what reads config.json, run.db, checkpoints and kept reward sources uses these
tables. Columns of run.db are migrated instead (record/schema.py).
"""

from collections.abc import Mapping
from typing import Any

SETTINGS: dict[str, str] = {}
"""Settings of config.json and of a checkpoint's state.json."""
RUN_KINDS = {"bench": "probe"}
"""`kind` in config.json."""
EVENT_KINDS = {"held": "paused", "rewards_away": "rewards_unavailable"}
"""`kind` of rows in the table `events`."""
MODULES = {
    "workbench.errors": "workbench.core.errors",
    "workbench.types": "workbench.core.types",
    "workbench.rewards.declare": "workbench.rewards.api.decorator",
    "workbench.rewards.outcome": "workbench.rewards.api.outcome",
    **{
        f"workbench.rewards.{name}": f"workbench.rewards.builtin.{name}"
        for name in (
            "answers", "choice", "countdown", "formats", "formulas", "human", "judge", "language", "learned", "length", "maths",
            "programs", "qa", "remote", "repetition", "story", "summary", "text", "translation",
        )
    },
}  # fmt: skip
"""Modules that reward sources kept in run folders import."""
FUNCTIONS = {
    "workbench.rewards.builtin.text": {"said": "final_answer", "tagged_answer": "answer_tag"},
    "workbench.rewards.builtin.remote": {"beside": "in_thread", "memory": "reply_cache"},
}
"""Functions of such modules, by today's module."""


def keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same values under today's names; a value that has both names keeps today's."""
    return {names.get(name, name): value for name, value in values.items() if names.get(name) not in values}


def spellings(name: str, names: Mapping[str, str]) -> list[str]:
    """Every name under which `name` may have been stored, today's first."""
    return [name, *(former for former, now in names.items() if now == name)]
