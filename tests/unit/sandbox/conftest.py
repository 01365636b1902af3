"""One warm sandbox for each backend that works on this machine."""

from collections.abc import Iterator

import pytest

from workbench.sandbox import Sandbox
from workbench.sandbox.backend import bubblewrap_works

BACKENDS = ("guard", "bwrap") if bubblewrap_works() else ("guard",)


@pytest.fixture(scope="module", params=BACKENDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(backend=request.param, probed=False) as made:
        yield made
