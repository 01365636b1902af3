"""Stage 1: tasks that yield unrendered prompts, and the order in which a run draws them."""

from workbench.prompts.registry import TASKS, task_of
from workbench.prompts.stream import PromptStream, watched
from workbench.prompts.task import Split, Task

__all__ = ["TASKS", "PromptStream", "Split", "Task", "task_of", "watched"]
