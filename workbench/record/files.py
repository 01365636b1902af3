"""Atomic replacement of files, private folders, and reading logs from their end."""

import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

STATE_FOLDER = ".workbench"
"""Folder in the runs root for locks and caches of the workbench itself; no run id can start like this one."""
LOG_LIMIT = 50 * 2**20
LINE_LIMIT = 8192
_TEXT_LIMIT = 2**20
JSON_LIMIT = 64 * 2**20
_LONGEST_INTEGER = 18
"""Digits: longer numbers do not fit into 64 bits and are read as floating point."""


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replaces a JSON file atomically: temporary file, fsync, os.replace. `durable` False skips the fsync (for
    heartbeats: one lost in a power cut is harmless)."""
    write_bytes(
        path,
        (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode(),
        durable=durable,
    )


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """As `write_json`, for any content. Only the owner can read the file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def read_json(path: Path, limit: int = JSON_LIMIT) -> Any:
    """The value of a JSON file that anybody may have written: never waits for a pipe, never recurses without end.

    Numbers that are not finite become None, and numbers beyond 64 bits floating point. Raises FileNotFoundError, OSError (not a
    plain file) and ValueError (not JSON, nested too deeply, more than `limit` bytes).
    """
    # Without O_NONBLOCK the opening of a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is a folder, a pipe or a device, not a plain file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    if not content.strip(b" \t\r\n\0"):
        raise ValueError("it is empty")
    return parse_json(content)


def parse_json(content: str | bytes) -> Any:
    """As `read_json`, for content at hand. Raises ValueError."""
    try:
        return json.loads(content, parse_int=_integer, parse_float=_finite, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int | float | None:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else _finite(digits)


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """Creates a folder that only its owner can enter, parents included."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def sync_folder(path: Path) -> None:
    """fsync of a folder, so that a rename in it survives a power cut. Does nothing where the platform has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def tail(path: Path, lines: int = 40) -> list[str]:
    """The last `lines` lines of a text file, read from its end; long lines are cut at 8 KB, invalid bytes replaced."""
    try:
        # A link could lead to any file of the machine, and the opening of a pipe would wait.
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start, chunk = size, b""
            while start > 0 and chunk.count(b"\n") <= lines and len(chunk) < _TEXT_LIMIT:
                step = min(65536, start)
                start -= step
                file.seek(start)
                chunk = file.read(step) + chunk
    except OSError:
        return []
    found = chunk.decode("utf-8", errors="replace").splitlines()[-lines:]
    return [
        line if len(line) <= LINE_LIMIT else f"{line[:LINE_LIMIT]} … ({len(line)} characters)"
        for line in found
    ]


def rotate(path: Path, limit: int = LOG_LIMIT) -> bool:
    """Copies a log of more than `limit` bytes to `<name>.1` and empties it in place: the worker's standard output has it
    open for appending, so a rename would not work. True where it did."""
    try:
        if path.stat().st_size <= limit:
            return False
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except OSError:
        return False
    return True
