"""The glossary as JSON: what each metric, alarm, setting and variant of the algorithm means, for tooltips and for forms in JavaScript.

In: the tables of `core` (glossary, config, variants). Out: plain JSON values.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from workbench.core import variants
from workbench.core.config import settings
from workbench.core.glossary import ALARMS, METRICS, SLOTS, metric
from workbench.core.setting import SettingInfo
from workbench.diagnose.whatif_tokens import TOKEN_SETTINGS
from workbench.view.common.form import format_value

Json = dict[str, Any]


def glossary() -> Json:
    """{"metrics": {name: {...}}, "alarms": {name: {...}}, "settings": {name: {...}}, "variants": {...}, "token_settings": [name]}; the
    last are the settings whose what-if needs log-probabilities of tokens."""
    return {
        "alarms": {
            name: {"label": row.label, "metric": row.metric, "condition": row.condition, "cause": row.cause}
            for name, row in ALARMS.items()
        },
        "metrics": {
            name: found._asdict() for name in _metric_names() if (found := metric(name) or METRICS.get(name))
        },
        "settings": {info.name: _setting(info) for info in settings()},
        "variants": variants.as_json(),
        "token_settings": list(TOKEN_SETTINGS),
    }


def _setting(info: SettingInfo) -> Json:
    return {
        "label": info.label,
        "help": info.help,
        "facts": facts(info),
        "default": format_value(info.default) if info.kind != "rewards" else None,
        "choices": list(info.choices),
        "min": info.gt if info.ge is None else info.ge,
        "max": info.le,
        "live": info.live,
    }


def facts(info: SettingInfo) -> str:
    """Choices, range and default of a setting in one line."""
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
        parts.append("Can be changed while the run trains.")
    return " ".join(parts)


def _metric_names() -> Iterator[str]:
    """Every metric by its recorded name. A pattern whose slot holds names of the run (a reward's) stays a pattern."""
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
