"""Reads the rows of a user's data: JSONL, JSON, CSV, TSV, Parquet, a dataset folder or a Hub dataset.

Out: a `Table` of plain dictionaries with row numbers as counted in that file. What cannot be read is a DataError that names file and
rows. Heavy readers are imported only where a file needs them.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SHOWN = 5
_HUB_TIMEOUT = 5.0


class Row(NamedTuple):
    """One record and its number in the file: the line in JSONL, the record in CSV, whose header is 1."""

    number: int
    values: dict[str, Any]


class Table(NamedTuple):
    """All rows of a source, which all have the same columns."""

    source: str
    columns: tuple[str, ...]
    rows: list[Row]


def describe_rows(source: str, numbers: Iterable[int]) -> str:
    """`file.csv, row 7`, or `file.csv, rows 1, 2, 3, 4, 5 and 4 more`."""
    every = list(numbers)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return f"{source}, row{'s' if len(every) > 1 else ''} {', '.join(map(str, every[:_SHOWN]))}{more}"


def read_table(name: str, split: str) -> Table:
    """Read a file, a dataset folder or a Hub dataset. Raises DataError."""
    path = Path(name).expanduser()
    if path.is_file():
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise DataError(
                f"{name}: files ending in {path.suffix!r} are not read. Give one of {', '.join(SUFFIXES)}."
            )
        try:
            table = _table(str(path), reader(path))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: not UTF-8 text at byte {error.start}. Save the file as UTF-8."
            ) from None
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror or error}).") from None
    elif path.suffix.lower() in _READERS:
        raise DataError(f"{name}: there is no such file. Check the path; it is taken from {Path.cwd()}.")
    else:
        table = _table(name, _dataset(name, path, split))
    if not table.rows:
        raise DataError(f"{name}: no rows. Give a file with at least one prompt.")
    return table


def _table(source: str, rows: list[Row]) -> Table:
    """Check that all rows have the columns of the first."""
    if not rows:
        return Table(source, (), [])
    columns = tuple(rows[0].values)
    expected = set(columns)
    ragged = [row for row in rows if set(row.values) != expected]
    if ragged:
        first = set(ragged[0].values)
        missing, extra = sorted(expected - first), sorted(first - expected)
        differs = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"adds {', '.join(extra)}"] * bool(extra)
        raise DataError(
            f"{describe_rows(source, (row.number for row in ragged))}: other columns than row {rows[0].number} (row "
            f"{ragged[0].number} {' and '.join(differs)}). Give every row the same; null is allowed."
        )
    halves = [row for row in rows if (_unpaired(list(row.values.values())) or _unpaired(list(row.values)))]
    if halves:
        raise DataError(
            f"{describe_rows(source, (row.number for row in halves))}: half a character (a lone surrogate, such as \\ud83d), which no file or "
            "tokenizer can hold. Remove it, or write the file anew from its source."
        )
    return Table(source, columns, _whole_numbers(columns, rows))


def _whole_numbers(columns: Iterable[str], rows: list[Row]) -> list[Row]:
    """Columns of whole numbers that were stored as floats since some are missing, as pandas does: integers and None again."""
    turned = []
    for name in columns:
        values = [row.values[name] for row in rows]
        missing = [value is None or value != value for value in map(_scalar, values)]
        numbers = [value for value, none in zip(values, missing, strict=True) if not none]
        if any(missing) and numbers and all(type(value) is float and value.is_integer() for value in numbers):
            turned.append(name)
    if not turned:
        return rows
    return [
        Row(row.number, {**row.values, **{name: _integer(row.values[name]) for name in turned}})
        for row in rows
    ]


def _scalar(value: Any) -> Any:
    return value if isinstance(value, float) or value is None else 0


def _integer(value: float | None) -> int | None:
    return None if value is None or value != value else int(value)


def _unpaired(value: object) -> bool:
    """Whether a text anywhere in a value of JSON holds half a character."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            # ASCII needs no search.
            if not found.isascii() and _SURROGATE.search(found):
                return True
        elif isinstance(found, dict):
            waiting.extend(found)
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
    return False


def _jsonl(path: Path) -> list[Row]:
    rows, bad = [], []
    # Only line feeds end a line here: splitlines() also cuts at separators that JSON strings may hold.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            rows.append(Row(number, values))
        else:
            bad.append(number)
    if bad:
        raise DataError(
            f"{describe_rows(str(path), bad)}: no JSON object. Each line must be one, such as "
            '{"prompt": "2 + 2", "answer": "4"}.'
        )
    return rows


def _json(path: Path) -> list[Row]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not valid JSON ({error}). Give a list of objects, or JSONL with one object a line."
        ) from None
    if not isinstance(values, list):
        raise DataError(f"{path}: holds no list. Give a list of objects, or JSONL with one object a line.")
    bad = [number for number, value in enumerate(values, start=1) if not isinstance(value, dict)]
    if bad:
        raise DataError(
            f"{describe_rows(str(path), bad)}: no object. Give every row as an object with the same keys."
        )
    return [Row(number, value) for number, value in enumerate(values, start=1)]


def _csv(path: Path, delimiter: str = ",") -> list[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            records = list(csv.reader(file, delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{path}: not a valid table ({error}). Quote cells that hold quotes or line breaks."
            ) from None
    numbered = [(number, record) for number, record in enumerate(records, start=1) if record]
    if not numbered:
        return []
    (_, header), body = numbered[0], numbered[1:]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            f"{path}: column {', '.join(map(repr, repeated))} is there twice. Rename one of them."
        )
    ragged = [number for number, record in body if len(record) != len(header)]
    if ragged:
        raise DataError(
            f"{describe_rows(str(path), ragged)}: not the {len(header)} cells of the header ({', '.join(header)}). "
            "Quote cells that hold the separator."
        )
    return [Row(number, dict(zip(header, record, strict=True))) for number, record in body]


def _tsv(path: Path) -> list[Row]:
    return _csv(path, delimiter="\t")


def _parquet(path: Path) -> list[Row]:
    import pyarrow  # noqa: PLC0415  only Parquet files need it, and the dashboard imports this package
    import pyarrow.parquet  # noqa: PLC0415

    try:
        values = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}).") from None
    return [Row(number, value) for number, value in enumerate(values, start=1)]


_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LONGEST_CELL = 2**31 - 1
"""Characters. The csv module stops at 131,072 by itself."""
_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet,
}  # fmt: skip


def _dataset(name: str, path: Path, split: str) -> list[Row]:
    """A folder written by `save_to_disk`, a folder of data files, or a dataset of the Hub."""
    try:
        import datasets  # noqa: PLC0415  an optional extra
    except ImportError:
        raise DataError(
            f"{name}: there is no such file, and dataset folders and Hub datasets need the `datasets` extra: "
            f"pip install 'grpo-workbench[datasets]'. Or give a file: {', '.join(SUFFIXES)}."
        ) from None
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(path))
        elif path.is_dir():
            found = datasets.load_dataset(str(path))
        else:
            found = _hub(datasets, name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"{name}: {first} Check the folder or the name.") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(
                f"{name}: no split {split!r}. It has {', '.join(found)}: set data_split to one of them."
            )
        found = found[split]
    return [Row(number, dict(value)) for number, value in enumerate(found, start=1)]


def _hub(datasets: Any, name: str) -> Any:
    """Ask the Hub once and briefly: without a network, `load_dataset` would retry for half a minute."""
    import huggingface_hub  # noqa: PLC0415  comes with the optional extra

    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=_HUB_TIMEOUT)
    except huggingface_hub.errors.HfHubHTTPError:
        raise DataError(
            f"{name}: neither a file or folder here nor a dataset on the Hub that this machine may read."
        ) from None
    except huggingface_hub.errors.HFValidationError:
        raise DataError(
            f"{name}: there is no such file or folder. Check the path; it is taken from {Path.cwd()}."
        ) from None
    except Exception:  # whatever the transport raises: then only a copy in the cache can help
        return _cached(datasets, name)
    return datasets.load_dataset(name)


def _cached(datasets: Any, name: str) -> Any:
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name)
    except Exception:
        raise DataError(
            f"{name}: neither a file or folder here nor in the dataset cache, and the Hub cannot be reached. "
            f"Check the name, or give a file: {', '.join(SUFFIXES)}."
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = before
