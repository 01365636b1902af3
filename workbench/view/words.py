"""The glossary as JSON: what each figure and each setting means, for tooltips. One source: glossary.py and config.py."""

from typing import Any

from workbench.config import SettingInfo, settings
from workbench.glossary import METRICS
from workbench.view.form import compact


def glossary() -> dict[str, Any]:
    """{"metrics": {name: {...}}, "settings": {name: {"label", "help", "facts", "default", "live"}}}."""
    return {"metrics": {name: metric._asdict() for name, metric in METRICS.items()},
            "settings": {info.name: {"label": info.label, "help": info.help, "facts": facts(info), "default": compact(info.default)
                                     if info.kind != "rewards" else None, "live": info.live} for info in settings()}}


def facts(info: SettingInfo) -> str:
    """Range and default of a setting in one line."""
    parts = []
    if info.choices:
        parts.append(f"One of {', '.join(map(str, info.choices))}.")
    low = f"at least {compact(info.ge)}" if info.ge is not None else f"above {compact(info.gt)}" if info.gt is not None else ""
    high = f"at most {compact(info.le)}" if info.le is not None else ""
    if low or high:
        parts.append(f"{' and '.join(part for part in (low, high) if part).capitalize()}.")
    if info.kind != "rewards":
        parts.append(f"Default {compact(info.default) or 'empty'}.")
    if info.live:
        parts.append("Can be changed while the run goes on.")
    return " ".join(parts)
