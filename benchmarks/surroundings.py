"""What every figure is kept with: the machine, the versions, and how busy it was before."""

import os
from typing import Any

from workbench.record.provenance import hardware, versions


def surroundings() -> dict[str, Any]:
    """To be asked before anything is measured."""
    return {"hardware": hardware(), "versions": versions(), "load_before": round(os.getloadavg()[0], 2)}
