"""What a file holds, as a sha256 of all of it: computed once, then remembered until the file system says that the file was touched.

In: files, and the runs root whose `.workbench/sha256.json` remembers. Out: a digest for each. Torch-free.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.record.files import STATE_FOLDER, make_folder, sha256, write_json

SETTLED_SECONDS = 2.0
"""A file touched more recently than this is not remembered: another write in the same tick of its clock would not show."""


def digests(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """sha256 of each file. Reads only those that changed since they were read last; raises OSError for one that is not there."""
    memory = root / STATE_FOLDER / "sha256.json"
    known = _read(memory)
    stamps = {file: _stamp(file) for file in files}
    unknown = [file for file in files if known.get(str(file.resolve()), {}).get("stamp") != stamps[file]]
    if unknown:
        with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter to others
            found = dict(zip(unknown, pool.map(sha256, unknown), strict=True))
        settled = [file for file in unknown if _stamp(file) == stamps[file] and _settled(stamps[file])]
        known |= {str(file.resolve()): {"stamp": stamps[file], "sha256": found[file]} for file in settled}
        with suppress(OSError):  # a memory that cannot be kept costs time, nothing else
            make_folder(memory.parent)
            write_json(memory, known)
    else:
        found = {}
    return {file: found.get(file) or known[str(file.resolve())]["sha256"] for file in files}


def _stamp(file: Path) -> list[int]:
    """What changes when a file does. Its modification time can be set by anybody, its change time only by the kernel."""
    found = file.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _settled(stamp: list[int]) -> bool:
    return time.time() - max(stamp[-2:]) / 1e9 > SETTLED_SECONDS


def _read(memory: Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
