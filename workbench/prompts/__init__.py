"""Stage 1, what is asked: tasks that yield unrendered prompts, and the order in which a run asks them."""

from workbench.prompts.registry import TASKS, task_of
from workbench.prompts.stream import PromptStream, watched
from workbench.prompts.task import Split, Task

__all__ = ["TASKS", "PromptStream", "Split", "Task", "task_of", "watched"]
