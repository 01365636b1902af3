"""Tasks with small data files that were written for this package: code, questions, translation, summarisation."""

import json
from collections.abc import Callable
from importlib import resources

from workbench.core.config import RunConfig
from workbench.core.types import Prompt
from workbench.prompts.task import Split


def loader(name: str) -> Callable[[RunConfig], Split]:
    """The `load` of a bundled task: its file says which rows are held out."""

    def load(config: RunConfig) -> Split:
        rows = read_rows(name)
        train = [prompt(row) for row in rows if row["split"] == "train"]
        heldout = [prompt(row) for row in rows if row["split"] == "heldout"]
        return Split(train, heldout[: config.eval_problems])

    return load


def read_rows(name: str) -> list[dict[str, object]]:
    """The rows of a bundled data file."""
    text = (resources.files("workbench.prompts") / "bundled_data" / f"{name}.jsonl").read_text(
        encoding="utf-8"
    )
    return [json.loads(line) for line in text.splitlines()]


def prompt(row: dict[str, object]) -> Prompt:
    """A row as a prompt; other columns than `prompt`, `answer` and `split` stay as they are."""
    columns = {key: value for key, value in row.items() if key not in ("split", "prompt", "answer")}
    return Prompt(str(row["prompt"]), str(row["answer"]), columns)
