"""Presets: named, sparse sets of settings. Published recipes ship as TOML files in this folder; users add files of their own."""

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.errors import ConfigError

DEFAULT_PRESET = "embedded"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Preset(NamedTuple):
    """A named, sparse set of settings."""

    name: str
    title: str
    about: str
    settings: dict[str, Any]


def presets() -> list[Preset]:
    """All shipped presets, `embedded` first."""
    return [load_preset(name) for name in _shipped()]


def load_preset(name: str) -> Preset:
    """A shipped preset by name, or one from a `.toml` file. Raises ConfigError."""
    shipped = resources.files(__name__) / f"{name}.toml"
    path = Path(name)
    if _NAME.fullmatch(name) and shipped.is_file():
        text = shipped.read_text()
    elif path.suffix == ".toml" and path.is_file():
        text = path.read_text()
    else:
        raise ConfigError(
            f"preset {name!r} is not known. Shipped: {', '.join(_shipped())}; or give a .toml file.",
            {"preset": f"{name!r} is not known"},
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"preset {name!r} is not valid TOML: {error}.") from None
    return Preset(path.stem, values.pop("title", path.stem), values.pop("about", ""), values)


def _shipped() -> list[str]:
    names = [
        entry.name.removesuffix(".toml")
        for entry in resources.files(__name__).iterdir()
        if entry.name.endswith(".toml")
    ]
    return sorted(names, key=lambda name: (name != DEFAULT_PRESET, name))
