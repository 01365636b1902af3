"""Errors that a user can fix. Every message says what was given, what is allowed and what to do.

All of them can be pickled, as they cross process boundaries; front ends show their text without a traceback.
"""


class WorkbenchError(Exception):
    """Base of all errors that a user can fix; shown as text, exit code 2 on the command line."""


class ConfigError(WorkbenchError, ValueError):
    """A setting is out of its range, unknown, or contradicts another one.

    `problems` maps a setting's name to its message, so that a form can show each beside its field.
    """

    def __init__(self, message: str, problems: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or {}

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, dict[str, str]]]:
        return type(self), (str(self), self.problems)


class DataError(WorkbenchError, ValueError):
    """Prompts could not be read: the message names the file and the row."""


class RewardError(WorkbenchError):
    """A reward could not be loaded, or returned something that is not a number or None."""


class ModelError(WorkbenchError):
    """A model folder or id cannot be used: missing, unsafe format, without tokenizer, out of context."""


class RunError(WorkbenchError):
    """A run folder is missing, damaged, newer than this program, or in a state that forbids the request."""


class SandboxError(WorkbenchError):
    """No back-end on this machine can contain model-written code."""


class DiskFull(RunError):
    """The disk is full. Nothing that was written is lost; writing continues once there is space."""
