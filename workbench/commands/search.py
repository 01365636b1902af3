"""The command `search`: samples of a run by their text and their figures, printed or saved as a file."""

import json as jsons
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from workbench.commands.options import DEFAULT_ROOT, AsJson, Root, RunName
from workbench.core.errors import ConfigError
from workbench.record import export
from workbench.record import folder as record
from workbench.record.reader import Reader
from workbench.record.search import Filters, Sort


def search(
    run: RunName,
    text: Annotated[str, Parameter(help="Text that the sample or its prompt holds.")] = "",
    *,
    words: Annotated[
        str | None, Parameter(help="Marker words of which the sample holds one: wait,check.")
    ] = None,
    reward_min: float | None = None,
    reward_max: float | None = None,
    length_min: int | None = None,
    length_max: int | None = None,
    step_min: int | None = None,
    step_max: int | None = None,
    finish_reason: Literal["stop", "length"] | None = None,
    advantage: Literal["up", "down", "zero"] | None = None,
    disagree: Annotated[
        str | None, Parameter(help="Two rewards of which one is above 0: correct,format.")
    ] = None,
    kind: Literal["train", "eval"] | None = None,
    sort: Sort = "newest",
    limit: Annotated[int, Parameter(help="How many samples.")] = 20,
    out: Annotated[Path | None, Parameter(help="A .jsonl or .parquet file for them.")] = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Samples of a run by their text and their figures."""
    pair = tuple(disagree.split(",")) if disagree else None
    if pair is not None and len(pair) != 2:
        raise ConfigError(f"--disagree {disagree}: name two rewards, for example correct,format.")
    filters = Filters(
        kind=kind, step_min=step_min, step_max=step_max, reward_min=reward_min, reward_max=reward_max,
        length_min=length_min, length_max=length_max, finish_reason=finish_reason, advantage=advantage,
        disagree=(pair[0], pair[1]) if pair else None, words=tuple(words.split(",")) if words else (),
    )  # fmt: skip
    found = Reader(record.find(run, runs)).hits(text, filters, sort, limit)
    if out is not None:
        print(f"{_saved(found, out)} bytes in {out}")
        return 0
    hits = list(found)
    if json:
        print(jsons.dumps(hits, ensure_ascii=False))
        return 0
    for hit in hits:
        reward, advantage_text = (
            "none" if hit[name] is None else f"{hit[name]:.3f}" for name in ("reward", "advantage")
        )
        where = f"{'evaluation' if hit['kind'] == 'eval' else 'step'} {hit['step']}, group {hit['k']}, sample {hit['i']}"
        print(f"-- {where}: reward {reward}  advantage {advantage_text}  {hit['length']} tokens")
        print(hit["text"])
    return 0


def _saved(rows: Iterator[dict[str, Any]], out: Path) -> int:
    makers = {".jsonl": export.jsonl, ".parquet": export.parquet}
    if out.suffix not in makers:
        raise ConfigError(f"--out {out}: end it in .jsonl or .parquet.")
    with out.open("wb") as file:
        return sum(file.write(piece) for piece in makers[out.suffix](rows))
