"""No circle between folders: at every level of the package, the files and folders below one folder form a graph without a way back.

Imports count wherever they stand, also those by name (`import_module("workbench.x")`), in Python and in the pages' JavaScript.
"""

import ast
import posixpath
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "workbench"
MODULES = {
    ".".join(
        (path.parent if path.name == "__init__.py" else path.with_suffix(""))
        .relative_to(PACKAGE.parent)
        .parts
    )
    for path in PACKAGE.rglob("*.py")
}
LAZY = ("workbench", "workbench.api")
"""The package hands out the notebook's names when they are used."""
JS_IMPORT = re.compile(r'(?:\bfrom|\bimport)\s*\(?\s*"(\.\.?/[^"]+)"')


def imports(tree: ast.AST) -> set[str]:
    """Modules of ours that a source imports, by statement or by name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add(first.value)
    deepest = {name for name in found if name in MODULES}
    # `from workbench.core import config` names the package only to reach the module.
    return {name for name in deepest if not any(other.startswith(name + ".") for other in deepest)}


def python_edges() -> list[tuple[str, str]]:
    """(importer, imported), as places below the package: `view/live/page`."""
    edges = []
    for path in PACKAGE.rglob("*.py"):
        importer = path.parent if path.name == "__init__.py" else path.with_suffix("")
        name = ".".join(importer.relative_to(PACKAGE.parent).parts)
        for imported in imports(ast.parse(path.read_text())):
            if (name, imported) != LAZY:
                edges.append((name.replace(".", "/"), imported.replace(".", "/")))
    return edges


def script_edges() -> list[tuple[str, str]]:
    """The same for the JavaScript of the pages."""
    edges = []
    for path in (PACKAGE / "view").rglob("*.js"):
        if "vendor" in path.parts:
            continue
        here = path.relative_to(PACKAGE.parent).as_posix()
        for target in JS_IMPORT.findall(path.read_text()):
            edges.append((here, posixpath.normpath(posixpath.join(posixpath.dirname(here), target))))
    return edges


def circles(edges: list[tuple[str, str]]) -> list[list[str]]:
    """Circles among the children of each folder, a folder standing for everything below it."""
    levels: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, imported in edges:
        one, other = importer.split("/"), imported.split("/")
        shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if shared is not None:  # else one is the package that holds the other
            folder = "/".join(one[:shared])
            levels[folder]["/".join(one[: shared + 1])].add("/".join(other[: shared + 1]))
    found = []
    for graph in levels.values():
        done: set[str] = set()

        def visit(
            node: str, way: list[str], graph: dict[str, set[str]] = graph, done: set[str] = done
        ) -> None:
            if node in way:
                found.append([*way[way.index(node) :], node])
            elif node not in done:
                for after in sorted(graph.get(node, ())):
                    visit(after, [*way, node])
                done.add(node)

        for node in list(graph):
            visit(node, [])
    return found


@pytest.mark.parametrize("edges", [python_edges, script_edges])
def test_folders_import_each_other_in_one_direction_only(edges):
    found = edges()
    assert len(found) > 100
    assert circles(found) == []


def test_a_circle_through_a_name_in_quotes_is_seen():
    wrong = imports(ast.parse('import importlib\nimportlib.import_module("workbench.worker.entry")'))
    assert wrong == {"workbench.worker.entry"}
    assert circles([*python_edges(), ("workbench/train/update", "workbench/worker/entry")]) != []


def test_a_room_may_have_circles_neither_between_its_folders_nor_through_its_files():
    assert circles([("a/b/one", "a/c/two"), ("a/c/three", "a/b/four")]) == [["a/b", "a/c", "a/b"]]
    assert circles([("a/b/one", "a/x"), ("a/x", "a/b/two")]) == [["a/b", "a/x", "a/b"]]
    assert circles([("a/b/one", "a/x"), ("a/y", "a/b/two")]) == []


def test_the_package_root_holds_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 8
