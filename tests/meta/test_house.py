"""The house stays in order: allowed imports, light entry, no unsafe loading."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "workbench").rglob("*.py"))


def test_rooms_import_only_what_they_may(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


@pytest.mark.parametrize(
    "room",
    [
        "workbench",
        "workbench.core.config",
        "workbench.launch",
        "workbench.algorithm.advantages",
        "workbench.algorithm.token_grads",
    ],
)
def test_light_rooms_load_neither_torch_nor_pandas(room):
    code = f"import sys, {room}; print([m for m in ('torch', 'pandas', 'transformers', 'gradio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_unpickles_or_runs_remote_code():
    banned = re.compile(
        r"^\s*(?:import|from) (?:pickle|dill|joblib)\b|torch\.load\(|trust_remote_code=True|allow_pickle=True",
        re.M,
    )
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in SOURCES
        for match in banned.finditer(path.read_text())
    ]
    assert found == []


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.read_text().strip() and not re.match(r'\s*(#!.*\n)?"""', path.read_text())
    ]
    assert silent == []


def test_no_two_test_files_share_a_name():
    names = Counter(path.name for path in ROOT.joinpath("tests").rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []  # pytest refuses to collect the second
