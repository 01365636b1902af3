"""The house stays in order: allowed imports, light entry, no unsafe loading."""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "workbench").rglob("*.py"))


def test_rooms_import_only_what_they_may(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


WRONG = {
    "core/errors.py": "from workbench.record import files",
    "diagnose/verdict.py": "import torch",
    "record/files.py": "import gradio",
    "view/live/delta.py": "from workbench.view.lab import routes",
    "rewards/api/outcome.py": "from workbench.rewards.runtime import pool",
    "train/update.py": "from workbench.train import grpo",
}
"""One import that breaks each contract."""


def test_a_wrong_import_breaks_its_contract(tmp_path):
    for path in SOURCES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    for file, wrong in WRONG.items():
        with (tmp_path / "workbench" / file).open("a") as source:
            source.write(f"\n{wrong}\n")
    config = str(ROOT / "pyproject.toml")
    code = (
        f"from importlinter.cli import lint_imports; lint_imports(config_filename={config!r}, no_cache=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"Contracts: 0 kept, {len(contracts)} broken." in done.stdout, done.stdout + done.stderr


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
