"""From the settings of RunConfig to form fields and back: one definition, no second list of names, labels or ranges.

In: `SettingInfo`s. Out: Gradio components, whose values `read` turns into what `RunConfig.parse` takes. Numbers are text fields:
what was typed stays as it was typed, and what is wrong with it is said beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.components.base import Component

from workbench.config import RewardSpec, SettingInfo, settings
from workbench.rewards.catalogue import REWARDS

INFOS: dict[str, SettingInfo] = {info.name: info for info in settings()}
REWARD_ROWS = 6
_SEGMENTS = 3
"""Choices up to this many are laid side by side; more go into a list."""


def compact(value: Any) -> str:
    """A value as a person would type it: 0.0004 is 4e-4, None is nothing."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, _, exponent = f"{value:.6e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if value != int(value) else f"{value:.1f}"


def shown(info: SettingInfo, value: Any) -> Any:
    """The value that a field of this setting shows."""
    return bool(value) if info.kind == "bool" else value if info.kind == "choice" else compact(value)


def field(name: str, value: Any, label: str | None = None, **options: Any) -> Component:
    """The component of a setting, its TRL default in small figures beside the label (pages.css puts it there)."""
    info = INFOS[name]
    common: dict[str, Any] = {
        "label": label or info.label, "elem_id": f"f-{name}", "elem_classes": ["wb-field", f"wb-{info.kind}"], "min_width": 60, **options}
    default = shown(info, info.default)
    if info.kind == "bool":
        return gr.Checkbox(value=bool(value), info="on by default" if default else None, **common)
    common["info"] = str(default) or None
    if info.kind == "choice":
        if len(info.choices) <= _SEGMENTS:
            return gr.Radio(list(info.choices), value=value, **common)
        return gr.Dropdown(list(info.choices), value=value, filterable=False, **common)
    return gr.Textbox(value=compact(value), lines=1, max_lines=1, **common)


class RewardRow(NamedTuple):
    """One reward of the form."""

    row: gr.Row
    name: gr.Dropdown
    weight: gr.Textbox
    counts: gr.Checkbox
    remove: gr.Button


def reward_values(specs: Sequence[RewardSpec]) -> list[Any]:
    """Name, weight and whether it counts, for every row of the form; rows without a reward have no name."""
    values: list[Any] = []
    for number in range(REWARD_ROWS):
        spec = specs[number] if number < len(specs) else None
        values += [spec.name, compact(spec.weight), spec.enabled] if spec else [None, "1.0", True]
    return values


def read_rewards(values: Sequence[Any], options: Mapping[str, Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The rewards as RunConfig.parse takes them, from the flat values of all rows. `options`: those of the preset, by name."""
    found = []
    for number in range(REWARD_ROWS):
        name, weight, counts = values[3 * number : 3 * number + 3]
        if name and str(name).strip():
            found.append({"name": str(name).strip(), "weight": weight, "enabled": bool(counts),
                          "options": dict((options or {}).get(str(name).strip(), {}))})
    return found


def catalogue() -> list[tuple[str, str]]:
    """The rewards on offer: (words, name)."""
    return [(f"{name} · {reward.title}" if reward.title else name, name) for name, reward in REWARDS.items()]
