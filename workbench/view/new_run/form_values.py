"""The form's values, validated: a RunConfig, or a sentence per field.

In: the raw values of all fields. Out: `CheckedForm`. Only checks cheap enough for every keystroke; those that need the data or a
process of their own are preflight's, at Start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, ModelError
from workbench.core.estimate import ModelFacts
from workbench.launch import preflight
from workbench.view.common import form

EMBEDDED, OTHER = "embedded", "other"


class CheckedForm(NamedTuple):
    """The validated form."""

    config: RunConfig | None
    """None where there are problems."""
    problems: dict[str, str]
    facts: ModelFacts | None
    valid_part: RunConfig | None
    """The config with invalid settings at their defaults, so that plots of all other settings stay right."""


def read(preset: str | RunConfig, choice: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Plain values for RunConfig.parse from the form's raw ones: `names` first, then the reward rows. `preset`: what the form
    starts from, by name or as settings; options and versions of rewards, which no field shows, are taken from it."""
    given: dict[str, Any] = dict(zip(names, values, strict=False))
    if choice == EMBEDDED:
        given["model"] = EMBEDDED
    base = RunConfig.build(preset) if isinstance(preset, str) else preset
    options = {spec.name: spec.options for spec in base.rewards}
    versions = {spec.name: spec.version for spec in base.rewards}
    given["rewards"] = [
        {**reward, "version": versions.get(reward["name"], "")}
        for reward in form.parse_rewards(values[len(names) :], options)
    ]
    return given


def check(given: Mapping[str, Any]) -> CheckedForm:
    """Validates the values; a model that cannot be used is a problem of the field `model`."""
    problems: dict[str, str] = {}
    facts = None
    model = str(given.get("model") or "").strip()
    if not model:
        problems["model"] = (
            "Name a folder on this machine, or a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    else:
        try:
            facts = estimate.facts(model)
        except ModelError as error:
            problems["model"] = str(error)
    try:
        config = RunConfig.parse(given)
    except ConfigError as error:
        found = {**error.problems, **problems} or {"": str(error)}
        return CheckedForm(None, found, facts, _without(given, found))
    if facts:
        preflight.check_lengths(config, facts, problems)
    return CheckedForm(None if problems else config, problems, facts, config)


def _without(given: Mapping[str, Any], wrong: Mapping[str, str]) -> RunConfig | None:
    """The config without the invalid settings; None where the rest is not valid either."""
    try:
        return RunConfig.parse({name: value for name, value in given.items() if name not in wrong})
    except ConfigError:
        return None
