"""Mathematical final answers, compared as mathematics by math-verify.

It limits its own time by a signal, which works only in the main thread of a process, where rewards are called.
"""

from importlib import import_module
from typing import Any

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin.text import answer_tag

_LIMIT_S = 5
"""Seconds for reading and for comparing one expression; below the time-out of a call."""


def prepare() -> None:
    """Load the library before the clock of the first call runs: sympy takes seconds."""
    _library()


@reward(
    title="Right answer, as mathematics",
    range=(0.0, 1.0),
    weakness="Without tag or box it reads the last thing that looks like mathematics, so late guesses pass.",
    example=Example({"completion": r"The result is \boxed{\frac{2}{4}}", "answer": r"$\frac{1}{2}$"}, 1.0),
)
def math(completion: str, answer: str | None) -> float | None:
    """1 where the final expression equals the reference as mathematics (LaTeX or plain), else 0.

    None where the reference answer cannot be read. (math-verify)
    """
    if answer is None:
        return None
    library = _library()
    expected = _read(library, answer)
    if not expected:
        return None
    tagged = answer_tag(completion)
    given = _read(library, tagged if tagged is not None else completion)
    return 1.0 if given and library.verify(expected, given, timeout_seconds=_LIMIT_S) else 0.0


def _read(library: Any, text: str) -> list[Any]:
    """The expressions in a text; a bare one is read as LaTeX too."""
    found = library.parse(text, parsing_timeout=_LIMIT_S)
    if not found and "$" not in text:
        found = library.parse(f"${text}$", parsing_timeout=_LIMIT_S)
    return list(found)


def _library() -> Any:
    return import_module("math_verify")
