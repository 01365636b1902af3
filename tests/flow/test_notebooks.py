"""The course runs from top to bottom."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
READS = {"02_write_a_reward", "03_rescore_a_run", "04_reward_pitfalls", "05_read_a_run"}
"""Notebooks that read runs; they find recorded ones."""
QUICK = "05_read_a_run"
"""The one that is run in the quick part of the suite too."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == QUICK else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
)
def test_notebook_runs_and_is_stored_without_outputs(path, tmp_path, request):
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    shutil.copy(path, tmp_path)
    if path.stem in READS:
        shutil.copytree(request.getfixturevalue("recorded").normal.path, tmp_path / "runs" / "normal")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output
    ]
    assert any("text/html" in data and "<iframe" in data["text/html"] for data in shown)
