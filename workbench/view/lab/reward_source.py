"""Reward code as text: which functions are rewards, which line an error is about, and the source of catalogue rewards.

In: source. Out: names, lines, source. Nothing is executed here.
"""

import ast
import re
import symtable
from typing import NamedTuple

from workbench.core.errors import RewardError
from workbench.rewards.api import source
from workbench.rewards.builtin import catalogue
from workbench.view.lab.drafts import CODE_FILE

_HOOKS = {"prepare", "finish"}
"""Called by a reward's process before and after its calls of the reward."""
_LINE = re.compile(r"(?:^|[\s,])[Ll]ine (\d+)")


class Function(NamedTuple):
    """A reward function of the code."""

    name: str
    line: int
    required: tuple[str, ...]
    """Its parameters without a default."""


def functions(code: str) -> list[Function]:
    """The rewards of the code, in its order. Raises RewardError for code that is not Python.

    These are the functions marked with @reward, and every top-level function without a leading underscore that no other calls.
    """
    tree = source.parse(code.encode("utf-8", "surrogatepass"), CODE_FILE)
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in _HOOKS
    ]
    marked = [
        node
        for node in found
        if any("reward" in ast.unparse(mark).partition("(")[0] for mark in node.decorator_list)
    ]
    called = _globals_used(code)
    chosen = [
        node for node in found if node in marked or not (node.name.startswith("_") or node.name in called)
    ]
    last = {node.name: node for node in chosen}  # a second `def` of a name replaces the first, as in Python
    return [Function(node.name, node.lineno, _required_parameters(node)) for node in last.values()]


def line_of(sentence: str) -> int | None:
    """The line of the user's code that a message names first."""
    found = _LINE.search(sentence)
    return int(found[1]) if found else None


def excerpt(name: str) -> str:
    """The source of a catalogue reward with everything that it uses from its file. Raises RewardError."""
    if name not in catalogue.REWARDS:
        raise RewardError(f"There is no reward {name!r} in the catalogue.")
    text = catalogue.source_of(name).code.decode()
    tree = ast.parse(text)
    lines = text.splitlines()
    for node in tree.body:
        _reduce_decorator(node)
    function = catalogue.function_of(name).__name__
    bound = {bound: node for node in tree.body for bound in _binds(node)}
    names_needed = {function, *(_HOOKS & bound.keys() if _is_alone(bound[function]) else ())}
    needed: set[ast.stmt] = set()
    while names_needed:
        found = bound.get(names_needed.pop())
        if found is None or found in needed:
            continue
        needed.add(found)
        names_needed |= {item.id for item in ast.walk(found) if isinstance(item, ast.Name)}
    used = {item.id for other in needed for item in ast.walk(other) if isinstance(item, ast.Name)}
    text = ""
    before: ast.stmt | None = None
    for node in sorted(needed, key=lambda node: node.lineno):
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [alias for alias in node.names if _bound(alias) in used]
            block = ast.unparse(node)
        else:
            block = _block_source(node, lines)
        if before is not None:
            both_imports = _is_import(before) and _is_import(node)
            both_plain = not (_is_block(before) or _is_block(node))
            text += (
                "\n"
                if both_imports or (both_plain and not _is_import(before))
                else "\n\n"
                if both_plain
                else "\n\n\n"
            )
        text += block
        before = node
    return text + "\n"


def added(code: str, name: str) -> str:
    """The code with a catalogue reward appended, its imports at the top. Raises RewardError: no such reward, the name is taken, or
    the code is not Python."""
    block = excerpt(name)
    tree = source.parse(code.encode("utf-8", "surrogatepass"), CODE_FILE)
    new = ast.parse(block)
    there = {bound for node in tree.body for bound in _binds(node) if not _is_import(node)}
    clash = [bound for node in new.body for bound in _binds(node) if not _is_import(node) and bound in there]
    if clash:
        raise RewardError(
            f"The code has a {clash[0]} already. Rename it, or start from {name} in an empty editor."
        )
    lines, fresh = code.rstrip().splitlines(), block.splitlines()
    imports = [ast.unparse(node) for node in new.body if _is_import(node)]
    known = {ast.unparse(node) for node in tree.body if _is_import(node)}
    body = "\n".join(fresh[next((n.lineno for n in new.body if not _is_import(n)), 1) - 1 :])
    first = next((node for node in new.body if not _is_import(node)), None)
    if isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) and first.decorator_list:
        body = "\n".join(fresh[first.decorator_list[0].lineno - 1 :])
    after = max((node.end_lineno or 0 for node in tree.body if _is_import(node)), default=0)
    missing = [line for line in imports if line not in known]
    if after == 0 and missing and lines:
        missing += ["", ""]
    return "\n".join([*lines[:after], *missing, *lines[after:], "", "", body]).lstrip("\n") + "\n"


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _is_alone(node: ast.stmt) -> bool:
    return "alone=True" in ast.unparse(node)


def _globals_used(code: str) -> set[str]:
    """Global names that functions, or the top level itself, look up."""
    found: set[str] = set()
    tables = [symtable.symtable(code, CODE_FILE, "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        at_top = table.get_type() == "module"
        found |= {
            item.get_name()
            for item in table.get_symbols()
            if item.is_referenced() and (at_top or item.is_global())
        }
    return found


def _reduce_decorator(node: ast.stmt) -> None:
    """Keep the arguments of `@reward(...)` that decide how it is called; drop those that describe it in the catalogue."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "reward":
            mark.keywords = [item for item in mark.keywords if item.arg in ("group", "alone", "messages")]
    node.decorator_list = [
        mark
        for mark in node.decorator_list
        if not (isinstance(mark, ast.Call) and ast.unparse(mark) == "reward()")
    ]


def _block_source(node: ast.stmt, lines: list[str]) -> str:
    marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", [])]
    return "".join(f"@{mark}\n" for mark in marks) + "\n".join(lines[node.lineno - 1 : node.end_lineno])


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [_bound(alias) for alias in node.names]
    if isinstance(node, ast.Assign):
        return [item.id for target in node.targets for item in ast.walk(target) if isinstance(item, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _bound(alias: ast.alias) -> str:
    return (alias.asname or alias.name).partition(".")[0]


def _required_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    given = node.args
    plain = [item.arg for item in (*given.posonlyargs, *given.args)]
    plain = plain[: len(plain) - len(given.defaults)]
    named = [
        item.arg for item, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None
    ]
    return (*plain, *named)
