"""The glossary as JSON: what each figure and each setting means, for tooltips. One source: glossary.py and
config.py."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from workbench.core import variants
from workbench.core.config import settings
from workbench.core.glossary import ALARMS, METRICS, SLOTS, metric
from workbench.core.setting import SettingInfo
from workbench.view.common.form import format_value


def glossary() -> dict[str, Any]:
    """{"metrics": {name: {...}}, "alarms": {name: {"label", "metric", "condition", "cause"}}, "settings": {name: {"label",
    "help", "facts", "default", "live"}}}."""
    return {
        "alarms": {
            name: {"label": row.label, "metric": row.metric, "condition": row.condition, "cause": row.cause}
            for name, row in ALARMS.items()
        },
        "metrics": {
            name: found._asdict() for name in _names() if (found := metric(name) or METRICS.get(name))
        },
        "variants": variants.as_json(),
        "settings": {
            info.name: {
                "label": info.label,
                "help": info.help,
                "facts": facts(info),
                "default": format_value(info.default) if info.kind != "rewards" else None,
                "live": info.live,
            }
            for info in settings()
        },
    }


def facts(info: SettingInfo) -> str:
    """Range and default of a setting in one line."""
    parts = []
    if info.choices:
        parts.append(f"One of {', '.join(map(str, info.choices))}.")
    low = (
        f"at least {format_value(info.ge)}"
        if info.ge is not None
        else f"above {format_value(info.gt)}"
        if info.gt is not None
        else ""
    )
    high = f"at most {format_value(info.le)}" if info.le is not None else ""
    if low or high:
        parts.append(f"{' and '.join(part for part in (low, high) if part).capitalize()}.")
    if info.kind != "rewards":
        parts.append(f"Default {format_value(info.default) or 'empty'}.")
    if info.live:
        parts.append("Can be changed while the run goes on.")
    return " ".join(parts)


def _names() -> Iterator[str]:
    """Every metric by its recorded name; patterns that a run fills with names of its own stay patterns."""
    for pattern in METRICS:
        slots = re.findall(r"<(\w+)>", pattern)
        if not all(slot in SLOTS for slot in slots):
            yield pattern
            continue
        for words in itertools.product(*(SLOTS[slot] for slot in slots)):
            filled = pattern
            for slot, word in zip(slots, words, strict=True):
                filled = filled.replace(f"<{slot}>", word)
            yield filled
