"""Writes the reference pages from the one definition of each setting, metric, preset and reward: `python docs/generate.py`.

A test compares the pages with what this makes, so they cannot drift.
"""

from pathlib import Path

from workbench import glossary
from workbench.config import RunConfig, settings
from workbench.presets import presets
from workbench.rewards.catalogue import REWARDS
from workbench.settings import SECTIONS, SettingInfo

FOLDER = Path(__file__).parent
Pages = dict[str, str]


def pages() -> Pages:
    """Every generated page, by file name."""
    return {
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "alarms.md": alarms_page(),
        "presets.md": presets_page(),
        "rewards.md": rewards_page(),
    }


def settings_page() -> str:
    """All settings by section."""
    lines = [
        "# Settings",
        "",
        "Generated from `workbench/config.py`. On the command line `--name value`; in a preset `name = value`. Names and",
        "defaults are TRL's where they mean the same. Live settings can change while a run goes on (`workbench set RUN name=value`).",
        "",
    ]
    for section, title in SECTIONS.items():
        lines += [f"## {title}", "", "| setting | default | allowed | what it does |", "|---|---|---|---|"]
        for info in settings():
            if info.section == section:
                name = f"`{info.name}`" + (" (live)" if info.live else "")
                lines.append(f"| {name} | {_value(info.default)} | {_allowed(info)} | {_cell(info.help)} |")
        lines.append("")
    return "\n".join(lines)


def metrics_page() -> str:
    """All metrics of the glossary."""
    lines = [
        "# Metrics",
        "",
        "Generated from `workbench/glossary.py`. Names are TRL's where they mean the same.",
        "",
        "| metric | unit | meaning | formula | healthy |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {_cell(metric.unit)} | {_cell(metric.meaning)} | {_cell(metric.formula)} | {_cell(metric.healthy)} |"
        for name, metric in glossary.METRICS.items()
    ]
    return "\n".join([*lines, ""])


def alarms_page() -> str:
    """All alarms, and the figures they are judged by."""
    lines = [
        "# Alarms",
        "",
        "Generated from `workbench/alarms.toml`. The worker judges them after every step, with or without a browser open, and",
        "records each with its figures, up to three answers and at most two remedies. `workbench doctor RUN` prints them.",
        "",
        "| alarm | watches | raised when | what it does to the run |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.label} (`{name}`) | `{row.metric}` | {_cell(row.condition)} | {_cell(row.cause)} |"
        for name, row in glossary.ALARMS.items()
    ]
    return "\n".join([*lines, ""])


def presets_page() -> str:
    """Each preset, and what it sets apart from the defaults and from the others."""
    lines = [
        "# Presets",
        "",
        "Generated from `workbench/presets/`. A preset is sparse: what it does not name has the default of",
        "[settings.md](settings.md). Columns show what differs from `trl-default`; an empty cell is that preset's default.",
        "",
    ]
    shipped = presets()
    for preset in shipped:
        lines += [f"- **{preset.name}**: {preset.about}"]
    base = RunConfig.build("trl-default")
    built = {preset.name: RunConfig.build(preset.name) for preset in shipped if preset.name != "trl-default"}
    lines += ["", f"| setting | trl-default | {' | '.join(built)} |", "|---" * (len(built) + 2) + "|"]
    for info in settings():
        default = getattr(base, info.name)
        row = [
            _value(getattr(config, info.name)) if getattr(config, info.name) != default else ""
            for config in built.values()
        ]
        if any(row):
            lines.append(f"| `{info.name}` | {_value(default)} | {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def rewards_page() -> str:
    """The catalogue, each reward with its known weakness."""
    lines = [
        "# Rewards",
        "",
        "Generated from the catalogue. `--reward name=weight`; your own: `--reward file.py:function=1.0`.",
        "",
        "| reward | range | what it scores | known weakness |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {info.range[0]:g} to {info.range[1]:g} | {_cell(info.about)} | {_cell(info.weakness)} |"
        for name, info in REWARDS.items()
    ]
    return "\n".join([*lines, ""])


def _allowed(info: SettingInfo) -> str:
    if info.choices:
        return ", ".join(f"`{choice}`" for choice in info.choices)
    bounds = [
        f"above {info.gt:g}" if info.gt is not None else "",
        f"{info.ge:g} or more" if info.ge is not None else "",
        f"at most {info.le:g}" if info.le is not None else "",
    ]
    return ", ".join(
        [info.kind, *(bound for bound in bounds if bound), *(["or empty"] if info.optional else [])]
    )


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(
            f"{spec.name} x {spec.weight:g}" + ("" if spec.enabled else " (watched)") for spec in value
        )
    return "" if value is None else f"`{value}`"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
        print(f"docs/{name}: {len(text.splitlines())} lines")
