"""Which saved code a reward is, and how messages name it and its lines to the user."""

import linecache
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST = 300


@dataclass(frozen=True, slots=True)
class RewardCode:
    """One reward as its process needs it: plain values, so that it can travel as JSON."""

    name: str
    """The key of its values, unique within the run."""
    path: str
    """Absolute path of the saved copy that runs, `<folder>/<first 16 digits of sha>.py`; its line numbers are those of `file`."""
    function: str
    file: str
    """The name the user knows: `reward.py`, `the cell of f`, `the pasted code`."""
    ours: bool
    """From the catalogue."""
    options: Mapping[str, Any]
    sha: str

    @property
    def subject(self) -> str:
        """`Your reward`, or `The reward correct`."""
        return f"The reward {self.name}" if self.ours else "Your reward"

    def at(self, line: int) -> str:
        """`Line 3 of reward.py.`"""
        return f"Line {line} of {self.file}."

    def quoted(self, line: int) -> str:
        """`Line 3 of reward.py: return 1 / 0`"""
        text = linecache.getline(self.path, line).strip()
        return f"Line {line} of {self.file}: {shorten(text)}" if text else self.at(line)


def shorten(text: str, longest: int = _LONGEST) -> str:
    """At most `longest` characters, without lone surrogates."""
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
