"""A runs folder that the tests of view share, read-only."""

from pathlib import Path

import pytest

from tests.fakes import write_fake_run
from workbench.record.folder import RunFolder
from workbench.view.common.run_store import RunStore


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="package")
def run(root: Path) -> RunFolder:
    """12 finished steps of 6 groups of 4, evaluations at 0, 5 and 10."""
    return write_fake_run(root, steps=12, groups=6, samples=4, eval_steps=5, name="first")


@pytest.fixture(scope="package")
def failing(root: Path, run: RunFolder) -> RunFolder:
    """3 steps in which a third of the samples could not be scored."""
    return write_fake_run(root, steps=3, groups=4, samples=4, seed=5, failures=0.34, state="failed")


@pytest.fixture(scope="package")
def store(root: Path, run: RunFolder, failing: RunFolder) -> RunStore:
    return RunStore(root)
