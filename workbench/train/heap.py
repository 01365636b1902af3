"""The C library's heap during training (glibc; elsewhere these functions do nothing)."""

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Of malloc.h."""


def configure() -> None:
    """One heap that keeps what is freed, and blocks of 8 MB and more (logits, caches) outside of it, which go back to the system at once.

    glibc's defaults adapt to the sizes they see and place a step's blocks into holes of the last one's."""
    if (mallopt := _glibc("mallopt")) is not None:
        for parameter, value in ((_MMAP_THRESHOLD, 8 << 20), (_TRIM_THRESHOLD, 1 << 30), (_ARENA_MAX, 1)):
            mallopt(parameter, value)


def trim() -> None:
    """Return freed memory to the system.

    Sampling, reference and update each leave holes that the next one's blocks do not fit into: without this their working memory adds
    up."""
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
