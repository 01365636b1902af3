"""Samples as files for other programs: rows in, chunks of bytes of a JSON lines or Parquet file out, so that
never all samples are in memory.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

BATCH = 2000
"""Rows in memory at a time."""


def jsonl(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """One JSON object a line."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def parquet(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """A Parquet file: one column a field, one `rewards/<name>` a reward."""
    # pyarrow takes a while to load and only a file needs it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    text, number, integer = pa.string(), pa.float64(), pa.int64()
    fields: list[tuple[str, Any]] = [
        ("id", integer), ("step", integer), ("kind", text), ("mode", text), ("k", integer), ("i", integer), ("prompt_id", text),
        ("question", text), ("text", text), ("reward", number), ("right", pa.bool_()), ("advantage", number),
        ("length", integer), ("finish_reason", text), ("style", text),
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
            yield sink.take()
            batch = list(itertools.islice(found, BATCH))
    yield sink.take()


class _Sink:
    """A write-only file whose content is taken out while it grows."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Keeps a copy: the caller reuses its buffer."""
        self._chunks.append(bytes(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        """What was written since the last call."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)
