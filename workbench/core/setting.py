"""A setting: a pydantic field that carries its label, section and remedy, and how a form or a table reads it.

The settings themselves are in `config.py`. Imports no ML library.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field
from pydantic.fields import FieldInfo

Section = Literal[
    "model", "data", "reward", "group", "update", "reference", "evaluation", "record", "machine"
]
SECTIONS: dict[Section, str] = {
    "model": "Model",
    "data": "Prompts",
    "reward": "Rewards",
    "group": "Group and sampling",
    "update": "Update",
    "reference": "KL and reference model",
    "evaluation": "Held-out evaluation",
    "record": "Record",
    "machine": "Machine",
}


class SettingInfo(NamedTuple):
    """What a form, a docs table or the command line needs to know about one setting."""

    name: str
    label: str
    help: str
    section: Section
    core: bool
    live: bool
    default: Any
    choices: tuple[Any, ...]
    ge: float | None
    gt: float | None
    le: float | None
    kind: str
    """int, float, bool, str, choice or rewards."""
    optional: bool
    """Whether None is allowed."""
    remedy: str
    """What to do about a value outside the range; '' where the range says enough."""


def setting(
    default: Any,
    label: str,
    help: str,
    section: Section,
    *,
    core: bool = False,
    live: bool = False,
    remedy: str = "",
    **constraints: Any,
) -> Any:
    """A pydantic field that carries its label, section, level (`core` or advanced) and remedy; `live` settings can change during a run."""
    extra: dict[str, Any] = {
        "label": label, "section": section, "core": core, "live": live, "remedy": remedy
    }  # fmt: skip
    if isinstance(default, list):
        return Field(
            default_factory=lambda: list(default), description=help, json_schema_extra=extra, **constraints
        )
    return Field(default, description=help, json_schema_extra=extra, **constraints)


def describe(name: str, info: FieldInfo, schema: Mapping[str, Any]) -> SettingInfo:
    """A field of a model and its part of the model's JSON schema, as a `SettingInfo`."""
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    options = schema.get("anyOf", [schema])
    kinds = [option for option in options if option.get("type") != "null"]
    choices = tuple(kinds[0].get("enum", ()))
    names = {"integer": "int", "number": "float", "boolean": "bool", "array": "rewards"}
    kind = "choice" if choices else names.get(kinds[0].get("type", ""), "str")
    return SettingInfo(
        name=name,
        label=str(extra["label"]),
        help=info.description or "",
        section=extra["section"],  # type: ignore[arg-type]
        core=bool(extra["core"]),
        live=bool(extra["live"]),
        default=info.get_default(call_default_factory=True),
        choices=choices,
        ge=kinds[0].get("minimum"),
        gt=kinds[0].get("exclusiveMinimum"),
        le=kinds[0].get("maximum"),
        kind=kind,
        optional=len(kinds) < len(options),
        remedy=str(extra["remedy"]),
    )


def explain(name: str, item: Any, fields: Mapping[str, FieldInfo]) -> str:
    """One of pydantic's errors as a sentence: what was given, what is allowed, what to do."""
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, fields, n=1)
        hint = f" Did you mean {close[0]}?" if close else " `workbench settings` lists them all."
        return f"{name} is not a setting.{hint}"
    if "ctx" in item and isinstance(item["ctx"].get("error"), ValueError):
        return str(item["ctx"]["error"])
    given = item.get("input")
    allowed = item["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be")
    allowed = allowed.replace("greater than or equal to", "at least").replace(
        "less than or equal to", "at most"
    )
    info = fields.get(name)
    remedy = (
        str(info.json_schema_extra.get("remedy") or "")
        if info and isinstance(info.json_schema_extra, dict)
        else ""
    )
    return f"{name} = {given!r}: {allowed}. {remedy}".strip().rstrip(".") + "."
