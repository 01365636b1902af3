"""Settings of RunConfig as Gradio form fields, and rewards as rows of fields; names, labels and ranges come from `core.config`.

In: `SettingInfo`s and `RewardSpec`s. Out: Gradio components; `parse_rewards` turns the rows' values into what `RunConfig.parse` takes.
Numbers are text fields, so that a wrong number stays as it was typed beside its error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.components.base import Component

from workbench.core.config import RewardSpec, settings
from workbench.core.setting import SettingInfo
from workbench.rewards.builtin.catalogue import REWARDS

INFOS: dict[str, SettingInfo] = {info.name: info for info in settings()}
REWARD_ROWS, REWARD_PARTS = 6, 3
_SEGMENTS, _LETTERS = 3, 20
"""Up to this many choices with up to this many letters together are radio buttons side by side; others a dropdown."""


def format_value(value: Any) -> str:
    """A value as a user would type it: 0.0004 is 4e-4, None is empty."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, _, exponent = f"{value:.6e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if value != int(value) else f"{value:.1f}"


def field_value(info: SettingInfo, value: Any) -> Any:
    """The value that a field of this setting shows."""
    return bool(value) if info.kind == "bool" else value if info.kind == "choice" else format_value(value)


def component_options(name: str, label: str | None = None) -> dict[str, Any]:
    """The arguments that every component of a setting takes: label, default as a small note, id and classes."""
    info = INFOS[name]
    default = field_value(info, info.default)
    note = ("on by default" if default else None) if info.kind == "bool" else str(default) or None
    classes = ["wb-field", f"wb-{info.kind}"]
    return {
        "label": label or info.label, "info": note, "elem_id": f"f-{name}", "elem_classes": classes,
        "min_width": 0,
    }  # fmt: skip


def field(name: str, value: Any, label: str | None = None, **options: Any) -> Component:
    """The component that fits a setting's kind."""
    info = INFOS[name]
    common = {**component_options(name, label), **options}
    if info.kind == "bool":
        return gr.Checkbox(value=bool(value), **common)
    if info.kind == "choice":
        letters = sum(map(len, info.choices))
        if len(info.choices) <= _SEGMENTS and letters <= _LETTERS:
            return gr.Radio(list(info.choices), value=value, **common)
        return gr.Dropdown(list(info.choices), value=value, filterable=False, **common)
    common.setdefault("placeholder", "–" if info.optional else None)
    return gr.Textbox(value=format_value(value), lines=1, max_lines=1, **common)


class RewardRow(NamedTuple):
    """The components of one reward."""

    row: gr.Row
    name: gr.Dropdown
    weight: gr.Textbox
    counts: gr.Checkbox
    remove: gr.Button

    def inputs(self) -> list[Component]:
        """The components that hold a value, in the order of `reward_values`."""
        return [self.name, self.weight, self.counts]


def reward_rows(specs: Sequence[RewardSpec]) -> list[RewardRow]:
    """REWARD_ROWS rows; those without a reward are hidden."""
    bare: dict[str, Any] = {"show_label": False, "container": False, "min_width": 0}
    choices = reward_choices()
    found = []
    for name, weight, counts in _batched(reward_values(specs), REWARD_PARTS):
        with gr.Row(elem_classes="wb-reward", visible=bool(name)) as row:
            found.append(
                RewardRow(
                    row,
                    gr.Dropdown(choices, value=name, allow_custom_value=True, label="Reward",
                                elem_classes="wb-reward-name", **bare),
                    gr.Textbox(weight, label="Weight", max_lines=1, elem_classes="wb-reward-weight", **bare),
                    gr.Checkbox(counts, label="counts", container=False, min_width=0,
                                elem_classes="wb-reward-counts"),
                    gr.Button("Remove", size="sm", min_width=0, elem_classes="wb-link wb-reward-remove"),
                )
            )  # fmt: skip
    return found


def reward_values(specs: Sequence[RewardSpec]) -> list[Any]:
    """Name, weight and whether it counts, flat, for every row of the form; a row without a reward has no name."""
    values: list[Any] = []
    for number in range(REWARD_ROWS):
        spec = specs[number] if number < len(specs) else None
        values += [spec.name, format_value(spec.weight), spec.enabled] if spec else [None, "1.0", True]
    return values


def parse_rewards(
    values: Sequence[Any], options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The rewards as RunConfig.parse takes them, from the flat values of all rows. `options`: those of the preset, by reward."""
    found = []
    for name, weight, counts in _batched(values, REWARD_PARTS):
        name = str(name or "").strip()
        if name:
            given = dict((options or {}).get(name, {}))
            found.append({"name": name, "weight": weight, "enabled": bool(counts), "options": given})
    return found


def _batched(values: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    """`values` in tuples of `size` (itertools.batched is newer than Python 3.11)."""
    return [tuple(values[start : start + size]) for start in range(0, len(values), size)]


def reward_choices() -> list[tuple[str, str]]:
    """The rewards of the catalogue: (label, name)."""
    return [(f"{name} · {reward.title}" if reward.title else name, name) for name, reward in REWARDS.items()]
