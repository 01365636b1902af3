"""Samples as files that other programs read: rows go in, the bytes of JSON lines or of a Parquet file come
out.

The file is made piece by piece, so that a hundred thousand answers do not lie in memory at once.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

BATCH = 2000
"""Rows that are held at a time."""


def jsonl(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """One JSON object a line."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def parquet(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """A Parquet file: one column a field, one `rewards/<name>` a reward."""
    # pyarrow takes a while to load and only a file needs it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    fields: list[tuple[str, Any]] = [
        ("id", whole), ("step", whole), ("kind", text), ("mode", text), ("k", whole), ("i", whole), ("prompt_id", text),
        ("question", text), ("text", text), ("reward", number), ("right", pa.bool_()), ("advantage", number),
        ("length", whole), ("finish_reason", text), ("style", text),
    ]  # fmt: skip
    found = iter(rows)
    first = list(itertools.islice(found, BATCH))
    rewards = sorted({name for row in first for name in row["rewards"]})
    schema = pa.schema([*fields, *((f"rewards/{name}", number) for name in rewards)])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema) as writer:
        batch = first
        while batch:
            flat = [
                {**row, **{f"rewards/{name}": row["rewards"].get(name) for name in rewards}} for row in batch
            ]
            writer.write_table(pa.Table.from_pylist(flat, schema=schema))
            yield sink.taken()
            batch = list(itertools.islice(found, BATCH))
    yield sink.taken()


class _Sink:
    """A file that is given away from the front while it is written at the end."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Keeps a copy: the caller reuses its buffer."""
        self._pieces.append(bytes(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
