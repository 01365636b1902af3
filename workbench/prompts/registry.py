"""The table of tasks: from a name to prompts, instructions and the rewards that fit."""

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.core.types import Prompt
from workbench.prompts import arithmetic, bundled, chain, countdown, data, generated
from workbench.prompts.task import TAGGED_FORMAT, Task

_TASKS = (
    Task(
        name="chain",
        title="Chains of last digits",
        about="Work through 6+8-3*4 from left to right, keeping the last digit. The embedded model knows it.",
        instruction=(
            "You get a chain of operations on digits. Work strictly from left to right and keep only the "
            "last digit after every operation; below zero, count back from ten."
        ),
        format_instruction=TAGGED_FORMAT,
        rewards=("correct", "format"),
        load=generated.loader("chain", chain.prompt, chain.DEFAULT_LEVELS, chain.LEVELS),
        example=Prompt("Chain: 6+8-3*4", "4", {"level": 3}),
        levels=chain.LEVELS,
    ),
    Task(
        name="arithmetic",
        title="Arithmetic",
        about="One sum, difference or product; the level is the digits of both numbers together.",
        instruction="Compute the result of the calculation.",
        format_instruction=TAGGED_FORMAT,
        rewards=("correct", "format"),
        load=generated.loader("arithmetic", arithmetic.draw, arithmetic.DEFAULT_LEVELS, arithmetic.LEVELS),
        example=Prompt("What is 48 - 7?", "41", {"level": 3}),
        levels=arithmetic.LEVELS,
    ),
    Task(
        name="countdown",
        title="Countdown",
        about="Reach a target with every given number used once; the level is how many numbers are given.",
        instruction=(
            "Write an arithmetic expression with + - * / and parentheses that has the wanted value and uses "
            "every given number exactly once."
        ),
        format_instruction=TAGGED_FORMAT,
        rewards=("countdown", "format"),
        load=generated.loader("countdown", countdown.draw, countdown.DEFAULT_LEVELS, countdown.LEVELS),
        example=Prompt("Make 24 from 3, 5, 9.", "(5*3)+9", {"level": 3, "numbers": [3, 5, 9], "target": 24}),
        levels=countdown.LEVELS,
    ),
    Task(
        name="code",
        title="Small Python functions",
        about="36 functions to write, each with test cases (a small bundled file: to try rewards on, not to train).",
        instruction="Write the Python function that is asked for.",
        format_instruction="Answer with one ```python block that holds the whole function.",
        rewards=("code_tests",),
        load=bundled.loader("code"),
        example=bundled.prompt(bundled.read_rows("code")[0]),
    ),
    Task(
        name="qa",
        title="Short questions",
        about="32 questions of general knowledge with accepted answers (a small bundled file).",
        instruction="Answer the question with as few words as possible.",
        format_instruction=TAGGED_FORMAT,
        rewards=("qa_match", "qa_f1", "format"),
        load=bundled.loader("qa"),
        example=bundled.prompt(bundled.read_rows("qa")[0]),
    ),
    Task(
        name="translation",
        title="Translation",
        about="32 English sentences with a German, French, Spanish or Italian translation (a small bundled file).",
        instruction="Translate the sentence.",
        format_instruction="Answer with the translation and nothing else.",
        rewards=("chrf", "bleu"),
        load=bundled.loader("translation"),
        example=bundled.prompt(bundled.read_rows("translation")[0]),
    ),
    Task(
        name="summarisation",
        title="Summaries",
        about="28 short texts with a summary in one sentence and its keywords (a small bundled file).",
        instruction="Summarise the text in one sentence.",
        format_instruction="Answer with the summary and nothing else.",
        rewards=("rouge", "coverage", "summary_length"),
        load=bundled.loader("summarisation"),
        example=bundled.prompt(bundled.read_rows("summarisation")[0]),
    ),
    Task(
        name="data",
        title="Your own prompts",
        about="A JSONL, JSON, CSV, TSV or Parquet file, a dataset folder or a Hub dataset.",
        instruction="",
        format_instruction="",
        rewards=("correct",),
        load=data.load,
        example=Prompt("What is 2 + 2?", "4"),
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
"""Every task by name."""


def task_of(config: RunConfig) -> Task:
    """The task a run names. Raises ConfigError."""
    found = TASKS.get(config.task)
    if found is None:
        message = f"task = {config.task!r} is not known. Choose one of {', '.join(TASKS)}."
        raise ConfigError(message, {"task": message})
    return found
