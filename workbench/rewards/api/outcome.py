"""A reward's result as a number, or as None with a sentence that says why.

In: whatever user code returned or raised. Out: finite floats, and reasons with the user's own line. Imported in every
reward process, so it must stay light.
"""

import math
import traceback
from collections.abc import Sequence
from typing import Any

from workbench.core.errors import RewardError, SandboxError
from workbench.rewards.api.code import RewardCode, shorten

NOT_APPLICABLE = "The reward returned None: it does not apply here."
"""The reason of a None that the reward returned without an explanation."""
ABSENT = "No value: "
"""Starts the reason of a None that the reward explained (`Absent`)."""
INFRASTRUCTURE = "Infrastructure: "
"""Starts the reason of a failure that is neither the model's nor the reward's: of a sandbox or a server."""


class Absent(Exception):
    """Raised by a reward that does not apply to a completion, with the reason; like None, it is no failure."""


class Unavailable(RewardError):
    """A service that a reward needs cannot be reached. A user's reward may raise it too."""


LIMIT = 1e9
"""A value beyond is taken for a mistake: its square would dominate the standard deviation of its group."""


def is_failure(reason: str) -> bool:
    """Whether a reason is that of a failure, not of a None that the reward chose to return."""
    return reason != NOT_APPLICABLE and not reason.startswith(ABSENT)


def as_number(value: Any) -> tuple[float | None, str]:
    """A finite float and nothing, or None and what the value is instead. None itself is not a failure."""
    if value is None:
        return None, NOT_APPLICABLE
    if not isinstance(value, bool | int | float) and not _numpy_scalar(value):
        return None, _describe(value)
    try:
        number = float(value)
    except OverflowError:
        return None, "a number too large for a float"
    except (TypeError, ValueError):  # numpy dates and the like
        return None, _describe(value)
    if math.isnan(number):
        return None, "NaN"
    if math.isinf(number):
        return None, "infinity"
    if abs(number) > LIMIT:
        return None, f"{number:g}, beyond what can be meant (1e9)"
    return number, ""


def _numpy_scalar(value: Any) -> bool:
    # By name, so that a reward process without numpy does not load it.
    kind = type(value)
    return (
        kind.__module__ == "numpy"
        and kind.__name__ != "ndarray"
        and not isinstance(value, str | bytes | complex)
    )


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return f'text ("{shorten(value, 40)}")'
    shape = getattr(value, "shape", None)
    if shape is not None:
        kind = "an array" if type(value).__module__ == "numpy" else "a tensor"
        return f"{kind} of shape {tuple(shape)}"
    if isinstance(value, list | tuple | set | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def one(value: Any, index: int, code: RewardCode, line: int) -> tuple[float | None, str]:
    """The value of one sample and, where it is None, its reason."""
    number, problem = as_number(value)
    if number is not None or problem == NOT_APPLICABLE:
        return number, problem
    remedy = "It must return a number or None."
    if hasattr(value, "shape"):
        remedy = "It must return a number or None: take one out with .item()."
    return None, f"{code.subject} returned {problem} for sample {index}. {remedy} {code.at(line)}"


def many(values: Any, count: int, code: RewardCode, line: int) -> tuple[list[float | None], list[str]]:
    """The values of a whole group and their reasons ('' where there is a value)."""
    if not isinstance(values, list | tuple) and hasattr(values, "tolist"):
        values = values.tolist()  # an array or tensor of one number a sample, as TRL and OpenRLHF accept
    problem = ""
    if not isinstance(values, Sequence) or isinstance(values, str):
        problem = "None" if values is None else as_number(values)[1] or f"a single number ({values:g})"
    elif len(values) != count:
        problem = f"{len(values)} {'value' if len(values) == 1 else 'values'} for {count} completions"
    if problem:
        reason = (
            f"{code.subject} returned {problem}. It must return a list with one number or None for "
            "each completion. "
        )
        return [None] * count, [reason + code.at(line)] * count
    pairs = [one(value, index, code, line) for index, value in enumerate(values)]
    return [number for number, _ in pairs], [reason for _, reason in pairs]


def raised(error: BaseException, code: RewardCode) -> str:
    """An exception in one sentence with the user's own line, and below it the lines that called it."""
    if isinstance(error, Absent):
        return f"{ABSENT}{text_of(error)}"
    if isinstance(error, SandboxError | Unavailable):
        return f"{INFRASTRUCTURE}{text_of(error)}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == code.path]
    sentence = f"{code.subject} raised {type(error).__name__}"
    text = text_of(error)
    sentence += f": {text}" if text else ""
    sentence += "" if sentence.endswith((".", "!", "?")) else "."
    if not frames:
        return sentence
    lines = [code.quoted(frame.lineno or 1) for frame in reversed(frames)]
    return "\n  called from ".join([f"{sentence} {lines[0]}", *lines[1:5]])


def text_of(error: BaseException) -> str:
    """The text of an exception, whatever its `__str__` does, shortened and safe to store."""
    try:
        return shorten(str(error))
    except Exception as second:  # the user's own __str__ may raise
        return f"(its text raised {type(second).__name__})"
