"""Where reward code comes from: the catalogue, a file, a function of a notebook or script, pasted text.

In: any of those. Out: the exact source with the name the user knows, checked without running it; and its saved copies, each
named by its hash. Nothing is written here but by `save`, which never leaves half a file.
"""

import ast
import builtins
import difflib
import hashlib
import inspect
import linecache
import os
import re
import symtable
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.errors import RewardError
from workbench.rewards.api.code import shorten
from workbench.rewards.api.importing import GIVEN

_FILE = re.compile(r"(?P<path>.*\.py)(?::(?P<function>[^:/\\]*))?", re.DOTALL)
_OF_A_MODULE = {*GIVEN, "__name__", "__file__", "__doc__", "__spec__", "__builtins__"}
_OF_A_NOTEBOOK = {"get_ipython", "display"}
"""A notebook puts these among the builtins; a reward process does not have them."""
VERSION_DIGITS = 16
"""Digits of the hash that name a saved copy."""


class SourceText(NamedTuple):
    """The source of one reward, before it is saved."""

    code: bytes
    function: str
    file: str
    """The name the user knows: `reward.py`, `the cell of f`."""
    ours: bool = False
    """From the catalogue."""

    @property
    def sha(self) -> str:
        """Of the exact bytes."""
        return hashlib.sha256(self.code).hexdigest()

    @property
    def version(self) -> str:
        """The name of its saved copy."""
        return self.sha[:VERSION_DIGITS]


def is_file(name: str) -> bool:
    """Whether a reward's name means a Python file: `reward.py`, `folder/reward.py:short`."""
    return _FILE.fullmatch(name) is not None


def file_and_function(name: str) -> tuple[str, str | None]:
    """`reward.py:short` taken apart; None where no function is named. Raises RewardError for what names no file."""
    match = _FILE.fullmatch(name)
    if match is None:
        raise RewardError(f"{name!r} does not name a reward in a file. Write path/to/file.py:function.")
    return match["path"], match["function"] or None


def from_file(name: str) -> SourceText:
    """`path/to/file.py:function`; without the function the file's only reward. Raises RewardError."""
    file, function = file_and_function(name)
    path = Path(file).expanduser()
    try:
        code = path.read_bytes()
    except FileNotFoundError:
        raise RewardError(
            f"{file} is not there. Give the path of a Python file, seen from {Path.cwd()}."
        ) from None
    except OSError as error:
        raise RewardError(f"{file} cannot be read: {error.strerror}. Give a Python file.") from None
    return from_code(code, function, path.name)


def from_code(code: bytes | str, function: str | None = None, file: str = "the pasted code") -> SourceText:
    """Source text; without a function's name its only reward. Raises RewardError with the wrong line."""
    raw = code.encode() if isinstance(code, str) else code
    tree = parse(raw, file)
    names = _functions(tree)
    if not function:
        marked = [name for name, is_marked in names.items() if is_marked]
        public = [name for name in names if not name.startswith("_")]
        choice = marked or public
        if len(choice) != 1:
            listed = ", ".join(choice) if choice else "none"
            raise RewardError(
                f"Which function of {file} is the reward? It has: {listed}. Write {file}:function."
            )
        function = choice[0]
    elif function not in names and not _binds(tree, function):
        close = difflib.get_close_matches(function, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        listed = ", ".join(names) or "none"
        raise RewardError(f"{file} has no function {function}. It has: {listed}.{hint}")
    return SourceText(raw, function, file)


def from_function(function: Callable[..., Any]) -> SourceText:
    """A function of a notebook, saved as its whole cell, or of a script or module, saved as the whole file.

    Raises RewardError for what has no source of its own (lambdas, closures, partials, methods) and for a cell
    that takes names from other cells.
    """
    _refuse_what_cannot_be_saved(function)
    name, code_object = function.__name__, function.__code__
    file = code_object.co_filename
    is_cell = not os.path.isfile(file) or "ipykernel" in file
    text = "".join(linecache.getlines(file))
    if not text:
        raise RewardError(
            f"The source of {name} cannot be found. Write it in a file and give file.py:{name}."
        )
    where = f"the cell of {name}" if is_cell else os.path.basename(file)
    source = from_code(text, name, where)
    if is_cell:
        _refuse_foreign_names(text, name, where)
    return source


def _refuse_what_cannot_be_saved(function: Callable[..., Any]) -> None:
    if not inspect.isfunction(function):
        kind = type(function).__name__
        raise RewardError(
            f"A reward must be a plain function, not a {kind}. Write `def my_reward(completion): ...` and "
            "pass what it needs as options."
        )
    if function.__name__ == "<lambda>":
        raise RewardError(
            "A lambda cannot be saved with a run. Give it a name: `def my_reward(completion): ...`."
        )
    if function.__code__.co_freevars:
        taken = ", ".join(function.__code__.co_freevars)
        raise RewardError(
            f"{function.__name__} takes {taken} from the function around it, which cannot be saved. Move it "
            "to the top level and make that an option: `def my_reward(completion, *, limit=10)`."
        )
    if "<locals>" in function.__qualname__:
        raise RewardError(
            f"{function.__name__} is defined inside another function. Move it to the top level."
        )


def _refuse_foreign_names(text: str, function: str, where: str) -> None:
    missing = foreign_names(text, where)
    if not missing:
        return
    if "get_ipython" in missing:
        raise RewardError(
            f"{where} has a line that starts with % or !. Put {function} into a cell without such lines."
        )
    them = "it" if len(missing) == 1 else "them"
    raise RewardError(
        f"{where} takes {', '.join(missing)} from another cell, and the cell is saved on its own. Import or "
        f"define {them} in the same cell."
    )


def foreign_names(text: str, file: str) -> list[str]:
    """Names that source text uses but neither defines, imports nor finds among the builtins, sorted."""
    if any(
        isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
        for node in ast.walk(parse(text.encode(), file))
    ):
        return []  # what a star import defines is not known
    top = symtable.symtable(text, file, "exec")
    bound = {
        symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }
    bound |= {table.get_name() for table in top.get_children()}
    used: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if symbol.is_declared_global() and symbol.is_assigned():
                bound.add(name)
            if symbol.is_referenced() and (symbol.is_global() or table is top):
                used.add(name)
    there = bound | _OF_A_MODULE | (set(dir(builtins)) - _OF_A_NOTEBOOK)
    return sorted(used - there)


def parse(code: bytes, file: str) -> ast.Module:
    """The syntax tree. Raises RewardError with file, line and the line's text."""
    try:
        return ast.parse(code, filename=file)
    except SyntaxError as error:
        if error.lineno is None:  # NUL bytes
            raise RewardError(f"{file} is not Python source: {error.msg}. Save it as text.") from None
        text = shorten((error.text or "").strip(), 120)
        shown = f": {text}" if text else ""
        raise RewardError(f"{file}, line {error.lineno}{shown}\n{error.msg}. Correct that line.") from None
    except ValueError as error:  # what cannot even be read as text
        raise RewardError(f"{file} is not Python source: {error}. Save it as text.") from None


def _functions(tree: ast.Module) -> dict[str, bool]:
    """Functions and callable classes at the top level, and whether `@reward` marks them."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = any(
                "reward" in ast.unparse(mark).partition("(")[0] for mark in node.decorator_list
            )
        elif isinstance(node, ast.ClassDef) and any(
            getattr(item, "name", "") == "__call__" for item in node.body
        ):
            found[node.name] = False
    return found


def _binds(tree: ast.Module, name: str) -> bool:
    """Whether anything at the top level (an assignment, an import, inside an `if`) may define the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, ast.alias) and (node.asname or node.name) in (name, "*"):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return True
    return False


def saved_path(folder: Path, sha: str) -> Path:
    """Where the copy with this hash, or with its first 16 digits, lies below a folder."""
    return (folder / f"{sha[:VERSION_DIGITS]}.py").resolve()


def read_saved(folder: Path, sha: str, name: str) -> bytes:
    """The saved copy of reward `name`. Raises RewardError where it is missing or was changed."""
    path = saved_path(folder, sha)
    try:
        code = path.read_bytes()
    except OSError:
        raise RewardError(
            f"The code of reward {name} is missing: {path}. Restore it, or give a new one."
        ) from None
    if not hashlib.sha256(code).hexdigest().startswith(sha):
        raise RewardError(
            f"The saved code of reward {name} was changed: {path}. Restore it, or give a new one."
        )
    return code


def save(sources: Sequence[SourceText], folder: Path) -> list[Path]:
    """Write each source to its `saved_path`, whole or not at all. Raises RewardError."""
    paths = [saved_path(folder, source.sha) for source in sources]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Written beside, then moved in one go; a full disk leaves nothing behind.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as beside:
            for source, path in zip(sources, paths, strict=True):
                written = Path(beside) / path.name
                written.write_bytes(source.code)
                written.replace(path)
    except OSError as error:
        raise RewardError(
            f"Reward sources cannot be written to {folder}: {error.strerror}. Choose another runs folder."
        ) from None
    return paths
