"""What stands in the fields of New run, validated: a RunConfig, or a sentence per field.

In: the raw values of all fields. Out: `CheckedForm`. Everything cheap enough to be asked at each keystroke;
what needs the data or a process of its own is preflight's, at Start.
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
    """What the fields come to."""

    config: RunConfig | None
    """None where a problem stands in the way."""
    problems: dict[str, str]
    facts: ModelFacts | None
    sketch: RunConfig | None
    """The same with what is wrong left at its default, so that the pictures of all other fields stay true."""


def read(preset: str | RunConfig, choice: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Plain values for RunConfig.parse from the form's raw ones: `names` first, then the reward rows. `preset`: what the form
    starts from, by name or whole; it knows what no field shows of a reward."""
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
    """Validates; a model that cannot be is a problem of the field `model`."""
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
    """What is left when the wrong settings are; None where that does not agree with itself either."""
    try:
        return RunConfig.parse({name: value for name, value in given.items() if name not in wrong})
    except ConfigError:
        return None
