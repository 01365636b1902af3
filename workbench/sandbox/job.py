"""The types of the sandbox: what is run, under which limits, and its result."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.core.errors import SandboxError

Status = Literal["ok", "error", "timeout", "memory", "output_limit", "killed", "infra_error", "refused"]
"""ok: every call returned, or every program ended by itself. error: the program raised, ended early, or
returned what cannot travel. timeout, memory, output_limit (output, files): the limit that was passed.
killed: it crashed, or was stopped for its number of threads. infra_error: our own machinery failed, which
says nothing about the program: the reward is None. refused: never started.
"""

MOST = {
    "wall_s": 600.0,
    "memory_mb": 65536,
    "disk_mb": 256,
    "files": 100_000,
    "threads": 512,
    "output_bytes": 1_000_000,
}
LEAST = {"wall_s": 0.05, "memory_mb": 96, "disk_mb": 1, "files": 1, "threads": 1, "output_bytes": 1_000}
LARGEST_SOURCE = 8_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process of a job may use. A job with several stdin texts has one process for each."""

    wall_s: float = 5.0
    """Seconds from its first line to its end; processor seconds are limited to one more than that."""
    memory_mb: int = 512
    """Address space, the interpreter's own 40 MB or so included."""
    output_bytes: int = 1_000_000
    """For each of stdout, stderr and the returned values."""
    disk_mb: int = 16
    """Bytes in its work folder, which is removed afterwards."""
    files: int = 1000
    threads: int = 32

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not LEAST[name] <= value <= most
            ):
                raise SandboxError(
                    f"sandbox limit {name} was {value!r}; allowed are {LEAST[name]:g} to {most:g}. "
                    "Choose a value in this range."
                )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function the program defines. `Solution.solve` makes a Solution first."""

    name: str
    args: tuple[Any, ...] = ()
    """JSON values; tuples arrive as lists."""


@dataclass(frozen=True, slots=True)
class Job:
    """A program, and calls to make, or stdin texts, or neither (run it once with empty input).

    With calls the program is imported (its `__name__` is "solution") and the values are what the calls
    return. Otherwise it runs as `__main__`, once for each text, and the values are what it prints. Expected
    values are not part of a job.
    """

    source: str
    calls: tuple[Call, ...] = ()
    stdin: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.calls and self.stdin:
            raise SandboxError(
                "a sandbox job was given both calls and stdin texts; allowed is one of them. Make two jobs."
            )
        for call in self.calls:
            try:
                json.dumps(call.args)
            except (TypeError, ValueError, RecursionError) as error:
                raise SandboxError(
                    f"the arguments of {call.name!r} cannot go into the sandbox: {error}. "
                    "Allowed are JSON values; write them as such."
                ) from None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a job. `values` and `errors` run parallel to the calls (or stdin texts)."""

    status: Status
    values: tuple[Any, ...] = ()
    """JSON values; None where `errors` says that there is none. Untrusted: compare with `compare_exact`."""
    errors: tuple[str | None, ...] = ()
    stdout_tail: str = ""
    """The end of what was printed; undecodable bytes replaced. Untrusted."""
    stderr_tail: str = ""
    error: str | None = None
    """The first failure in words, with the program's own line."""
    line: int | None = None
    wall: float = 0.0
    """Seconds, all processes of the job together."""
    cpu: float = 0.0
    maxrss: int = 0
    """Bytes, the largest process."""


def failed(status: Status, job: Job, error: str) -> Result:
    """A result without values."""
    count = len(job.calls) or len(job.stdin) or 1
    return Result(status, values=(None,) * count, errors=(error,) * count, error=error)
