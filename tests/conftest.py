"""One torch thread a test process, so that several do not fight over the cores; no network, no tracker."""

import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest  # noqa: E402 (threads first)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    """`tests.recorded.Recorded`: shared by all test processes of the session."""
    from tests.recorded import Recorded  # noqa: PLC0415 (only the tests that need it pay for the imports)

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return Recorded(shared / "recorded")


@pytest.fixture
def yard(tmp_path: Path):
    """A runs root whose workers only count; all of them end with the test."""
    from tests.helpers import Yard  # noqa: PLC0415 (as above)

    made = Yard(tmp_path / "runs")
    yield made
    made.close()
