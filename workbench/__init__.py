"""GRPO workbench: see what GRPO is doing to a language model, and steer it.

Names are looked up when they are used, so `import workbench` costs nothing: no torch, no pandas. Inside the
package import modules.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.api import (
        TASKS,
        RewardSpec,
        Run,
        RunConfig,
        embedded_model,
        open_run,
        presets,
        rescore,
        reward,
        runs,
        start,
        try_reward,
    )

__version__ = "0.1.0"
__all__ = [
    "TASKS",
    "RewardSpec",
    "Run",
    "RunConfig",
    "embedded_model",
    "open_run",
    "presets",
    "rescore",
    "reward",
    "runs",
    "start",
    "try_reward",
]


_MODULES = {"advantages": "workbench.algorithm.advantages", "bench": "workbench.launch.probe_client"}
"""Modules that notebooks took from here before they moved."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in __all__:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    from workbench import api  # noqa: PLC0415 (this laziness is the point)

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
