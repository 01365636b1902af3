"""Three short real runs, made once a test session and shared by reader, notebook and browser tests (read only)."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from tests.helpers import wait_until
from workbench import launch
from workbench.core.config import RunConfig
from workbench.launch import preflight
from workbench.record.folder import RunFolder

FAILING = '''"""A reward that breaks on some answers."""


def picky(completion: str, answer: str) -> float:
    if len(completion) % 3 == 0:
        raise ValueError(f"cannot read an answer of {len(completion)} characters")
    return float(f"<answer>{answer}</answer>" in completion)
'''
SMALL = {
    "wandb": "off",
    "threads": 1,
    "prompts_per_step": 6,
    "num_generations": 6,
    "eval_problems": 16,
    "watched_prompts": 4,
    "watched_samples": 2,
    "eval_steps": 3,
    "save_steps": 3,
    "steps": 3,
}
SETTINGS = {
    "normal": {
        "steps": 20,
        "eval_steps": 10,
        "save_steps": 10,
        "eval_problems": 64,
        "wandb": "off",
        "threads": 1,
        "seed": 7,
    },
    "dead": {**SMALL, "rewards": "format=1", "learning_rate": 2e-3, "steps": 6},
    "failing": {**SMALL, "seed": 3},
}


class Recorded(NamedTuple):
    """The run folders."""

    root: Path
    normal: RunFolder
    """The default run cut at 20 steps."""
    dead: RunFolder
    """Rewards format only, far too fast: most groups soon agree."""
    failing: RunFolder
    """A user's reward that raises on every third answer."""


def record(root: Path) -> Recorded:
    """The runs below `root`, made there by real workers unless another test process has made them already."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_suffix(".lock")):
        if not (root / "failing").is_dir():
            making = root / "making"
            shutil.rmtree(making, ignore_errors=True)
            script = making / "picky.py"
            script.parent.mkdir()
            script.write_text(FAILING)
            for name, settings in SETTINGS.items():
                rewards = {"rewards": f"{script}:picky=1"} if name == "failing" else {}
                folder = preflight.start(
                    RunConfig.build(None, {**settings, **rewards, "run_name": name}), making / "runs"
                )

                finish(folder)
                os.rename(folder.path, root / name)
    return Recorded(root, *(RunFolder(root / name) for name in SETTINGS))


def finish(folder: RunFolder, timeout: float = 600.0) -> launch.RunState:
    """Wait until a run is over, and require that it finished."""

    wait_until(lambda: launch.state(folder).over, timeout, f"run {folder.id}")
    state = launch.state(folder)
    assert state.state == "finished", (state.reason, folder.log_tail(20))
    return state
