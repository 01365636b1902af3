"""From the saved source of a reward to a callable, inside a reward process.

In: the path of the saved copy and a function's name. Out: the function and its shape, or a LoadError that
names file, line and remedy.
"""

import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.core.errors import WorkbenchError
from workbench.rewards.api import outcome
from workbench.rewards.api.decorator import reward
from workbench.rewards.api.outcome import Origin
from workbench.rewards.api.signature import Shape, read_shape

GIVEN = {"reward": reward, "workbench": sys.modules["workbench"], "wb": sys.modules["workbench"]}
"""Names that reward code finds without an import: what is pasted or taken from a cell often lacks it. The
package itself comes from the table of modules: an import would tie this room to everything it offers."""


class LoadError(Exception):
    """The saved source cannot be used; the message names file, line and remedy."""


def load(path: str, origin: Origin) -> ModuleType:
    """The module of a saved source, under a private name, its folder not on the import path.

    Raises LoadError.
    """
    private = f"_workbench_reward_{hashlib.sha256(path.encode()).hexdigest()[:12]}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(GIVEN)
    sys.modules[private] = module
    _serve_former_names(Path(path).read_text(encoding="utf-8", errors="replace"))
    sys.dont_write_bytecode = True  # the folder of a run holds sources, not caches
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # the reward boundary: code at the top of the file may do anything
        del sys.modules[private]
        raise LoadError(why(error, origin)) from None
    return module


_OWN_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<package>workbench[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n#]*)"
    r"|import[ \t]+(?P<module>workbench[\w.]*))",
    re.M,
)
_MOVED = {
    "workbench.errors": "workbench.core.errors",
    "workbench.types": "workbench.core.types",
    "workbench.rewards.declare": "workbench.rewards.api.decorator",
    "workbench.rewards.outcome": "workbench.rewards.api.outcome",
    **{
        f"workbench.rewards.{name}": f"workbench.rewards.builtin.{name}"
        for name in (
            "answers", "choice", "countdown", "formats", "formulas", "human", "judge", "language", "learned", "length", "maths",
            "programs", "qa", "remote", "repetition", "story", "summary", "text", "translation",
        )
    },
}  # fmt: skip
_RENAMED = {
    "workbench.rewards.builtin.text": {"said": "final_answer", "tagged_answer": "answer_tag"},
}
"""Run folders keep copies of reward source, which import our modules and functions by their names of that time."""


def _serve_former_names(source: str) -> None:
    for found in _OWN_IMPORT.finditer(source):
        package = found["package"] or found["module"]
        for former in (package, *(f"{package}.{name}" for name in re.findall(r"\w+", found["names"] or ""))):
            current = _MOVED.get(former, former)
            if current != former or current in _RENAMED:
                module = sys.modules[former] = importlib.import_module(current)
                for old, new in _RENAMED.get(current, {}).items():
                    setattr(module, old, getattr(module, new))


def why(error: BaseException, origin: Origin) -> str:
    """What went wrong while a module was loaded or got ready: the user's line, and what to do."""
    if isinstance(error, WorkbenchError):
        return str(error)
    line = _user_line(error, origin)
    where = origin.quoted(line) if line else f"In {origin.file}."
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        return (
            f"{where}\nThere is no module named {error.name}. Install it (pip install {package}) or take the "
            "import out. A reward can import installed packages only: put own helpers into the same file."
        )
    if isinstance(error, SystemExit):
        return (
            f"{where}\nThe file ends the program while it is loaded. Take that out, or put it in a function."
        )
    return (
        f"{where}\n{type(error).__name__}: {outcome.text_of(error)}\nThis happened while the file was "
        "loaded. Correct that line, or move it into the function."
    )


def _user_line(error: BaseException, origin: Origin) -> int | None:
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == origin.path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def find(module: ModuleType, name: str, origin: Origin) -> Callable[..., Any]:
    """The reward of that name; a class is made into an object first (ms-swift). Raises LoadError."""
    found = getattr(module, name, None)
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as error:  # the user's own __init__
            raise LoadError(
                f"{name} of {origin.file} cannot be made without arguments: {outcome.text_of(error)}. Give "
                "its __init__ defaults, or write a plain function."
            ) from None
    if callable(found):
        return found  # type: ignore[no-any-return]
    own = [
        item
        for item, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", None) == module.__name__
        and not item.startswith("_")
    ]
    has = f"It has: {', '.join(own)}." if own else "It defines no function."
    raise LoadError(f"{origin.file} has no function {name}. {has}")


def shape_of(function: Callable[..., Any], name: str, origin: Origin) -> Shape:
    """The shape of a reward. Raises LoadError."""
    try:
        return read_shape(function)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{name} of {origin.file} {error}") from None
