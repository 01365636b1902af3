"""From the untrusted bytes that a job's process wrote to a `Result`.

Neither the exit code nor anything printed is ever a verdict. A value counts only when it came in a line of
the result pipe that carries the job's nonce.
"""

import json
import signal
from collections.abc import Sequence
from typing import Any

from workbench.sandbox.inside.runner import DEEPEST
from workbench.sandbox.job import Call, Limits, Result, Status
from workbench.sandbox.server import Raw

TAIL = 4000
"""Characters of stdout and stderr that a result keeps."""
ENDED_EARLY = (
    "the program ended itself before its work was done (exit code {code}); leaving early is not a result"
)
TAMPERED = "the program wrote to the result channel by itself"


def read_calls(raw: Raw, nonce: str, calls: Sequence[Call], limits: Limits) -> Result:
    """The outcome of a job with calls: a value or an error for each."""
    messages, tampered = _messages(raw.report, nonce)
    status, error, line = _status(raw, messages, tampered, limits)
    values: list[Any] = [None] * len(calls)
    errors: list[str | None] = [error or "was not reached"] * len(calls)
    for message in messages:
        index = message.get("call")
        if type(index) is int and 0 <= index < len(calls):
            values[index] = message.get("value")
            errors[index] = _text(message["error"]) if "error" in message else None
    if tampered:
        values, errors = [None] * len(calls), [TAMPERED] * len(calls)
    return _result(raw, status, values, errors, error, line)


def read_program(raw: Raw, nonce: str, limits: Limits) -> Result:
    """The outcome of a program run once: what it printed, if it came to its end."""
    messages, tampered = _messages(raw.report, nonce)
    status, error, line = _status(raw, messages, tampered, limits)
    printed = raw.stdout.decode("utf-8", "replace") if status == "ok" else None
    return _result(raw, status, [printed], [error], error, line)


def joined(parts: Sequence[Result]) -> Result:
    """One result of several runs of the same program; the first failure gives the status."""
    worst = next((part for part in parts if part.status != "ok"), parts[-1])
    return Result(
        status=worst.status,
        values=tuple(value for part in parts for value in part.values),
        errors=tuple(error for part in parts for error in part.errors),
        stdout_tail=worst.stdout_tail,
        stderr_tail=worst.stderr_tail,
        error=worst.error,
        line=worst.line,
        wall=sum(part.wall for part in parts),
        cpu=sum(part.cpu for part in parts),
        maxrss=max(part.maxrss for part in parts),
    )


def _messages(report: bytes, nonce: str) -> tuple[list[dict[str, Any]], bool]:
    """The lines with the nonce, and whether there was anything else."""
    messages, tampered = [], False
    *lines, rest = report.split(b"\n")
    for line in lines:
        mark, _, text = line.partition(b" ")
        try:
            message = json.loads(text) if mark == nonce.encode() else None
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict) and _depth(message) <= DEEPEST + 3:
            messages.append(message)
        else:
            tampered = True
    return messages, tampered or bool(rest and not rest.startswith(nonce.encode()))


def _depth(value: object) -> int:
    """How deeply lists and dicts are nested, found without recursion, since what reads the value next may recurse."""
    deepest, rest = 0, [(value, 1)]
    while rest:
        item, depth = rest.pop()
        deepest = max(deepest, depth)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        rest += [(part, depth + 1) for part in inner if isinstance(part, dict | list)]
    return deepest


def _status(
    raw: Raw, messages: list[dict[str, Any]], tampered: bool, limits: Limits
) -> tuple[Status, str | None, int | None]:
    """Status, error, line. The order of the checks decides which of several causes is reported."""
    done = next((message for message in messages if "done" in message), None)
    if not any("begun" in message for message in messages):
        why = _text(_tail(raw.stderr)) or f"exit code {raw.exit_code}"
        return "infra_error", f"the job's process failed before the program ran: {why}", None
    # From here on it has begun: whatever happens is caused by the program.
    if tampered:
        return "error", TAMPERED, None
    if raw.stopped == "output":
        return "output_limit", f"more than {limits.output_bytes:,} bytes were printed or returned", None
    if raw.stopped == "disk":
        return (
            "output_limit",
            f"more than {limits.files:,} files or {limits.disk_mb} MB in the work folder",
            None,
        )
    if raw.stopped == "threads":
        return "killed", f"more than {limits.threads} threads were started", None
    if done is not None and done["done"] in ("ok", "error", "memory"):
        line = done.get("line")
        error = _text(done["error"]) if "error" in done else None
        return done["done"], error, line if type(line) is int else None
    out_of_time = raw.exit_code == -signal.SIGKILL and raw.cpu >= limits.wall_s  # RLIMIT_CPU
    if raw.stopped == "timeout" or out_of_time:
        return "timeout", f"not done after {limits.wall_s:g} s", None
    if raw.exit_code < 0:
        name = signal.Signals(-raw.exit_code).name
        if raw.maxrss >= 0.8 * limits.memory_mb * 2**20:
            return (
                "memory",
                f"ended by {name} with {raw.maxrss / 2**20:.0f} MB in use, of {limits.memory_mb} MB allowed",
                None,
            )
        return "killed", f"crashed with {name}", None
    return "error", ENDED_EARLY.format(code=raw.exit_code), None


def _result(
    raw: Raw, status: Status, values: list[Any], errors: list[str | None], error: str | None, line: int | None
) -> Result:
    return Result(
        status=status,
        values=tuple(values),
        errors=tuple(errors),
        stdout_tail=_tail(raw.stdout),
        stderr_tail=_tail(raw.stderr),
        error=error,
        line=line,
        wall=raw.wall,
        cpu=raw.cpu,
        maxrss=raw.maxrss,
    )


def _tail(data: bytes) -> str:
    return data[-4 * TAIL :].decode("utf-8", "replace")[-TAIL:]


def _text(value: object) -> str:
    """Text that can be stored and shown: lone surrogates and NUL escaped."""
    return str(value).replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
