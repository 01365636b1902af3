"""From the saved copy of a reward to a callable, inside a reward process.

In: a RewardCode. Out: its module and its function, or a LoadError that names file, line and remedy.
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

from workbench.core import renamed
from workbench.core.errors import WorkbenchError
from workbench.rewards.api import outcome
from workbench.rewards.api.code import RewardCode
from workbench.rewards.api.decorator import reward

GIVEN = {"reward": reward, "workbench": sys.modules["workbench"], "wb": sys.modules["workbench"]}
"""Names that reward code may use without an import: pasted code and notebook cells often lack it. The package itself is taken
from `sys.modules`: an import here would make every room of the package a dependency of this one."""


class LoadError(Exception):
    """The saved code cannot be used; the message names file, line and remedy."""


def load(code: RewardCode) -> ModuleType:
    """The module of a saved copy, under a private name, its folder not on the import path. Raises LoadError."""
    private = f"_workbench_reward_{hashlib.sha256(code.path.encode()).hexdigest()[:12]}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, code.path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(GIVEN)
    sys.modules[private] = module
    _serve_former_names(Path(code.path).read_text(encoding="utf-8", errors="replace"))
    sys.dont_write_bytecode = True  # the folder of a run holds sources, not caches
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # the reward boundary: code at the top of the file may do anything
        del sys.modules[private]
        raise LoadError(why(error, code)) from None
    return module


_OWN_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<package>workbench[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n#]*)"
    r"|import[ \t]+(?P<module>workbench[\w.]*))",
    re.M,
)


def _serve_former_names(source: str) -> None:
    """Makes former names of our modules and functions importable, where a kept source imports them."""
    for found in _OWN_IMPORT.finditer(source):
        package = found["package"] or found["module"]
        for former in (package, *(f"{package}.{name}" for name in re.findall(r"\w+", found["names"] or ""))):
            current = renamed.MODULES.get(former, former)
            if current != former or current in renamed.FUNCTIONS:
                module = sys.modules[former] = importlib.import_module(current)
                for old, new in renamed.FUNCTIONS.get(current, {}).items():
                    setattr(module, old, getattr(module, new))


def why(error: BaseException, code: RewardCode) -> str:
    """Why a module could not be loaded or prepared: the user's line, and what to do."""
    if isinstance(error, WorkbenchError):
        return str(error)
    line = _user_line(error, code)
    where = code.quoted(line) if line else f"In {code.file}."
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


def _user_line(error: BaseException, code: RewardCode) -> int | None:
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == code.path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def find(module: ModuleType, code: RewardCode) -> Callable[..., Any]:
    """The reward function; a class is instantiated first (ms-swift). Raises LoadError."""
    found = getattr(module, code.function, None)
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as error:  # the user's own __init__
            raise LoadError(
                f"{code.function} of {code.file} cannot be made without arguments: {outcome.text_of(error)}. Give "
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
    raise LoadError(f"{code.file} has no function {code.function}. {has}")
