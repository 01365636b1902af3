"""Three short real runs, each made when a test of the session first asks, and shared by reader, notebook and browser tests (read only)."""

import os
import shutil
from functools import cached_property
from pathlib import Path

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


class Recorded:
    """The run folders below `root`, each made by a real worker when a test first asks for it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def normal(self) -> RunFolder:
        """The default run cut at 20 steps."""
        return record(self.root, "normal")

    @cached_property
    def dead(self) -> RunFolder:
        """Rewards format only, far too fast: most groups soon agree."""
        return record(self.root, "dead")

    @cached_property
    def failing(self) -> RunFolder:
        """A user's reward that raises on every third completion."""
        return record(self.root, "failing")


def record(root: Path, name: str) -> RunFolder:
    """The run of that name below `root`, made there unless another test process has made it already."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        if not (root / name).is_dir():
            making = root / f"making-{name}"
            shutil.rmtree(making, ignore_errors=True)
            script = making / "picky.py"
            script.parent.mkdir()
            script.write_text(FAILING)
            rewards = {"rewards": f"{script}:picky=1"} if name == "failing" else {}
            settings = {**SETTINGS[name], **rewards, "run_name": name}
            folder = preflight.start(RunConfig.build(None, settings), making / "runs")
            finish(folder)
            os.rename(folder.path, root / name)
    return RunFolder(root / name)


def finish(folder: RunFolder, timeout: float = 600.0) -> launch.RunState:
    """Wait until a run is over, and require that it finished."""

    wait_until(lambda: launch.state(folder).over, timeout, f"run {folder.id}")
    state = launch.state(folder)
    assert state.state == "finished", (state.reason, folder.log_tail(20))
    return state
