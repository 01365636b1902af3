"""What must not stand in the code at all: doors that the guard cannot watch."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "workbench"
PYTHON = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
SCRIPTS = {
    path.relative_to(PACKAGE).as_posix(): path.read_text()
    for path in (PACKAGE / "view").rglob("*.js")
    if "vendor" not in path.parts
}  # the vendored library draws numbers only
BANNED = {
    "a model of somebody else's as a page": r"\bgr\.load\(|gradio\.load\(",
    "a login that knows a token": r"LoginButton",
    "a look at the whole disk": r"FileExplorer",
    "a tunnel to everybody": r"share\s*=\s*True|\.launch\(share",
    "markup from data": r"sanitize_html\s*=\s*False|datatype\s*=\s*[\[\"']+html",
    "pickles": r"pickle\.loads?\(|torch\.load\(|joblib\.load\(|allow_pickle\s*=\s*True|weights_only\s*=\s*False",
    "YAML that builds objects": r"yaml\.(unsafe_)?load\(",
    "a model's own code": r"trust_remote_code\s*=\s*True",
    "a shell": r"shell\s*=\s*True|os\.system\(|os\.popen\(",
}
ATTACKS = "sandbox/programs/"
"""Programs that try such things, to be run in the sandbox."""


@pytest.mark.parametrize("door", BANNED)
def test_no_module_opens_a_door(door: str) -> None:
    found = {
        name: hit.group()
        for name, text in PYTHON.items()
        if not name.startswith(ATTACKS) and (hit := re.search(BANNED[door], text))
    }
    assert found == {}


def test_no_script_makes_markup_or_code_of_text() -> None:
    doors = re.compile(
        r"\.innerHTML\s*=|\.outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function\(|javascript:"
    )
    assert {name: hits for name, text in SCRIPTS.items() if (hits := doors.findall(text))} == {}
    assert len(SCRIPTS) > 20
