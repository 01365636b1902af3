"""Writes the reference pages from the one definition of each setting, metric, preset and reward: `python docs/generate.py`.

A test compares the pages with what this makes, so they cannot drift.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # picture.py, also where a test loads this file by its path

from picture import picture

from workbench.core import glossary
from workbench.core.config import RunConfig, settings
from workbench.core.presets import presets
from workbench.core.setting import SECTIONS, SettingInfo
from workbench.rewards.api.signature import STANDARD
from workbench.rewards.builtin.catalogue import REWARDS

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
        "images/architecture.svg": picture(),
    }


def settings_page() -> str:
    """All settings by section."""
    parts = []
    for section, title in SECTIONS.items():
        rows = [
            [
                f"`{info.name}`" + (" (live)" if info.live else ""),
                _value(info.default),
                _allowed(info),
                info.help,
            ]
            for info in settings()
            if info.section == section
        ]
        table = _table(["setting", "default", "allowed", "what it does"], rows)
        parts += [f"## {title}", "", *table, ""]
    return _page(
        "Settings",
        "Generated from `workbench/core/config.py`. On the command line `--name value`; in a preset `name = value`. Names and\n"
        "defaults are TRL's where they mean the same. Live settings can change while a run goes on (`workbench set RUN name=value`).",
        parts[:-1],
    )


def metrics_page() -> str:
    """All metrics of the glossary."""
    rows = [
        [f"`{name}`", metric.unit, metric.meaning, metric.formula, metric.healthy]
        for name, metric in glossary.METRICS.items()
    ]
    return _page(
        "Metrics",
        "Generated from `workbench/core/glossary.toml`. Names are TRL's where they mean the same.",
        _table(["metric", "unit", "meaning", "formula", "healthy"], rows),
    )


def alarms_page() -> str:
    """All alarms, and the figures they are judged by."""
    rows = [
        [f"{row.label} (`{name}`)", f"`{row.metric}`", row.condition, row.cause]
        for name, row in glossary.ALARMS.items()
    ]
    return _page(
        "Alarms",
        "Generated from `workbench/core/alarms.toml`. The worker judges them after every step, with or without a browser open, and\n"
        "records each with its figures, up to three samples and at most two remedies. `workbench doctor RUN` prints them.",
        _table(["alarm", "watches", "raised when", "what it does to the run"], rows),
    )


def presets_page() -> str:
    """Each preset, and what it sets apart from the defaults and from the others."""
    shipped = presets()
    base = RunConfig.build("trl-default")
    built = {preset.name: RunConfig.build(preset.name) for preset in shipped if preset.name != "trl-default"}
    rows = []
    for info in settings():
        default = getattr(base, info.name)
        values = [getattr(config, info.name) for config in built.values()]
        apart = [_value(value) if value != default else "" for value in values]
        if any(apart):
            rows.append([f"`{info.name}`", _value(default), *apart])
    return _page(
        "Presets",
        "Generated from `workbench/core/presets/`. A preset is sparse: what it does not name has the default of\n"
        "[settings.md](settings.md). Columns show what differs from `trl-default`; an empty cell is that preset's default.",
        [
            *(f"- **{preset.name}**: {preset.about}" for preset in shipped),
            "",
            *_table(["setting", "trl-default", *built], rows),
        ],
    )


def rewards_page() -> str:
    """The catalogue, each reward with its known weakness, and how a reward of one's own asks for its arguments."""
    rows = [
        [f"`{name}`", f"{info.range[0]:g} to {info.range[1]:g}", info.about, info.weakness]
        for name, info in REWARDS.items()
    ]
    kinds = [
        ["`def f(completion, ...)`", "one sample", _names(STANDARD["sample"])],
        [
            "`@reward(group=True)`",
            "one group; prompt, `answer` and columns are single values",
            _names(STANDARD["group"]),
        ],
        ["`def f(completions, ...)`, TRL's", "one group; everything is a list", _names(STANDARD["list"])],
    ]
    return _page(
        "Rewards",
        "Generated from the catalogue. `--reward name=weight`; your own: `--reward file.py:function=1.0`.",
        [
            *_table(["reward", "range", "what it scores", "known weakness"], rows),
            "",
            "## Your own",
            "",
            *_table(
                ["signature", "called for", "arguments it can ask for, beside the columns of the data"], kinds
            ),
            "",
            OWN_REWARDS,
        ],
    )


OWN_REWARDS = """\
An argument with a default is an option: `options` of the reward, or a column of that name, replace the default. A reward returns
a number, or None where it does not apply; `raise Absent("why")` (`workbench.rewards.api.outcome`) says why. Arguments of verl,
OpenRLHF, ms-swift and verifiers (`solution_str`, `labels`, `solution`, `parser`, ...) are known too.

Two properties cannot be seen in a signature. Say them, and nothing is guessed:

- **Chat messages.** `@reward(messages=True)` gets `[{"role": ..., "content": ...}]` in place of each prompt and completion,
  `messages=False` plain text. Without either, TRL's signature with lists gets messages where the data is conversational (its prompts
  are messages) and text elsewhere, as in TRL; other signatures get text.
- **Random numbers.** A reward must give the same value on every visit to a sample: after a resume, and whichever process calls it.
  An argument `rng` gets a `random.Random` that is seeded for the sample (reward, step, prompt, place in the group), or
  for the group where the call is for a whole group.
  `@reward(random=True)` seeds `random` and `numpy.random` in the same way before each call; `random=False` leaves them alone.

```python
from workbench import reward


@reward(messages=True)
def polite(completion, rng):
    return float("please" in completion[-1]["content"]) + 0.01 * rng.random()
```

Where neither the decorator nor an argument says it, the code is read: a function that reads `["content"]` gets messages, and a
file in which the word `random` occurs is seeded. Every such guess is shown, before a run starts, with `try_reward` and in the lab:
`Reward f draws random numbers, seeded for each sample (guessed from the code; say @reward(random=True) to be explicit).`"""


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _page(title: str, about: str, lines: Sequence[str]) -> str:
    return "\n".join([f"# {title}", "", about, "", *lines, ""])


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(_cell(text) for text in row)} |" for row in [columns, *rows]]
    return [lines[0], "|---" * len(columns) + "|", *lines[1:]]


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
