"""Runs one job in its own process: the program, then each call; one line a value on the result pipe.

In: the payload {nonce, source, calls, as_program}. Out: lines of the nonce and one JSON object: {"begun"},
then {"call", "value"} or {"call", "error", "line"}, at last {"done": "ok" | "error" | "memory"}. No expected
value is ever here. The nonce keeps stray and guessed writes out; a program that digs it out of this process
gains nothing, since it could as well have returned the forged value.
"""

import builtins
import json
import linecache
import os
import random
import sys
import traceback
import types
from typing import Any

FILE = "solution.py"
RESULT_FD = 3
PLAIN = (type(None), bool, int, float, str)
DEEPEST = 100
LONGEST_ERROR = 2000


class Unsendable(Exception):
    """A value that is not plain JSON."""


def run(payload: bytes) -> None:
    """Run the job and report. Returns in every case; the caller ends the process."""
    job = json.loads(payload)
    prefix = (job["nonce"] + " ").encode()
    out_of_memory = prefix + b'{"done": "memory", "error": "MemoryError"}\n'
    status, first = "ok", None
    _send(prefix, {"begun": True})
    try:
        _open_standard_streams()
        random.seed(0)  # the same program prints the same thing in every run
        try:
            namespace = _load(job["source"], "__main__" if job["as_program"] else "solution")
        except SystemExit as stop:
            if not job["as_program"] or stop.code not in (None, 0):
                raise
            namespace = {}
        for index, (name, arguments) in enumerate(job["calls"]):
            try:
                value = plain(_find(namespace, name)(*arguments))
                _send(prefix, {"call": index, "value": value})
            except MemoryError:
                raise
            except BaseException as error:
                report = _describe(error)
                status, first = "error", first or report
                _send(prefix, {"call": index, **report})
        if job["as_program"]:
            _wait_for_threads()
        _flush()
        _send(prefix, {"done": status, **(first or {})})
    except MemoryError:
        _flush()
        _write(out_of_memory)
    except BaseException as error:  # whatever a program raises is a result, never a crash of ours
        _flush()
        _send(prefix, {"done": "error", **_describe(error)})


def plain(value: Any, depth: int = 0) -> Any:
    """The value, tuples as lists. Exact types only: a subclass may be made to fool a comparison."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if depth > DEEPEST:
        raise Unsendable(f"returned a value nested deeper than {DEEPEST} levels")
    if kind is list or kind is tuple:
        return [plain(item, depth + 1) for item in value]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise Unsendable(
                    f"returned a dict with a key of type {type(key).__name__}; only str keys travel"
                )
        return {key: plain(item, depth + 1) for key, item in value.items()}
    raise Unsendable(
        f"returned a value of type {kind.__name__}; only None, bool, int, float, str, list, tuple and "
        "dict travel, and no subclass of them"
    )


def _load(source: str, name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    sys.argv = [FILE]
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # `-S` leaves them out, and programs call them
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    exec(compile(source, FILE, "exec"), module.__dict__)
    return module.__dict__


def _find(namespace: dict[str, Any], name: str) -> Any:
    """`solve`, or `Solution.solve`, for which a Solution is made first."""
    head, _, method = name.partition(".")
    if head not in namespace:
        raise NameError(f"the program defines no {head!r}")
    found = namespace[head]
    return getattr(found() if isinstance(found, type) else found, method) if method else found


def _describe(error: BaseException) -> dict[str, Any]:
    """Type, message and the program's own line."""
    kind = type(error).__name__
    try:
        text = str(error)[:LONGEST_ERROR]
    except BaseException:  # a hostile __str__
        text = "(its message could not be shown)"
    if isinstance(error, Unsendable):
        return {"error": text, "line": None}
    line = error.lineno if isinstance(error, SyntaxError) else None
    if line is None:
        own = [
            number
            for frame, number in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_filename == FILE
        ]
        line = own[-1] if own else None
    code = linecache.getline(FILE, line).strip()[:120] if line else ""
    where = f" (line {line}: {code})" if code else f" (line {line})" if line else ""
    return {"error": f"{kind}: {text}{where}" if text else f"{kind}{where}", "line": line}


def _open_standard_streams() -> None:
    """Text over the job's descriptors; lone surrogates are printed escaped and do not end the program."""
    for descriptor, name, mode, errors in (
        (0, "stdin", "r", "surrogateescape"),
        (1, "stdout", "w", "backslashreplace"),
        (2, "stderr", "w", "backslashreplace"),
    ):
        stream = open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _wait_for_threads() -> None:
    """A program ends with its last ordinary thread: many work in one that has a larger stack."""
    threads = sys.modules.get("threading")
    for thread in threads.enumerate() if threads else []:
        if thread is not threads.current_thread() and not thread.daemon:  # type: ignore[union-attr]
            thread.join()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BaseException:  # closed or replaced by the program
        return


def _send(prefix: bytes, message: dict[str, Any]) -> None:
    _write(prefix + json.dumps(message).encode() + b"\n")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(RESULT_FD, data) :]
