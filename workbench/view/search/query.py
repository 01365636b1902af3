"""Search over recorded samples: a query string becomes filters, hits become short rows, and all hits a file.

In: a reader and the parameters of the address. Out: plain JSON values, or the bytes of a file in chunks.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.core.errors import RunError
from workbench.diagnose.text import R1_WORDS
from workbench.record import export
from workbench.record.files import parse_json
from workbench.record.reader import Reader
from workbench.record.search import SORTS, Filters, Place, Sort

Json = dict[str, Any]
AROUND = 90
"""Characters shown before the first match."""
SHOWN = 260
"""Characters of a completion in a list of hits."""
EXPORTED = 100_000
"""Hits that one file holds."""


class Query(BaseModel):
    """The parameters of one search, named as in the address."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field("", max_length=500)
    kind: Literal["train", "eval"] | None = None
    step_min: int | None = Field(None, ge=0, lt=2**63)
    step_max: int | None = Field(None, ge=0, lt=2**63)
    reward_min: float | None = Field(None, allow_inf_nan=False)
    reward_max: float | None = Field(None, allow_inf_nan=False)
    length_min: int | None = Field(None, ge=0, lt=2**63)
    length_max: int | None = Field(None, ge=0, lt=2**63)
    finish: Literal["stop", "length"] | None = None
    advantage: Literal["up", "down", "zero"] | None = None
    right: bool | None = None
    style: str | None = Field(None, max_length=100)
    prompt: str | None = Field(None, max_length=100)
    failed: str | None = Field(None, max_length=200)
    disagree: str | None = Field(None, max_length=400)
    words: str | None = Field(None, max_length=300)
    sort: Sort = "newest"

    def filters(self) -> Filters:
        """The conditions as `Reader.find` takes them. Raises RunError."""
        pair = tuple(self.disagree.split("|")) if self.disagree else None
        if pair is not None and len(pair) != 2:
            raise RunError(f"disagree = {self.disagree!r}: name two rewards as a|b.")
        return Filters(
            kind=self.kind,
            step_min=self.step_min,
            step_max=self.step_max,
            reward_min=self.reward_min,
            reward_max=self.reward_max,
            length_min=self.length_min,
            length_max=self.length_max,
            finish_reason=self.finish,
            advantage=self.advantage,
            right=self.right,
            style=self.style,
            prompt_id=self.prompt,
            failed_reward=self.failed,
            disagree=(pair[0], pair[1]) if pair else None,
            words=tuple(self.words.split()) if self.words else (),
        )


class PageQuery(Query):
    """A search and which of its pages."""

    after: str | None = Field(None, max_length=200)
    limit: int = Field(50, ge=1, le=200)


class FileQuery(Query):
    """A search and the file its hits go into."""

    format: Literal["jsonl", "parquet"] = "jsonl"


def find(reader: Reader, query: PageQuery) -> Json:
    """A page of hits, each cut to the surroundings of its first match, and where the next page begins."""
    page = reader.find(query.text, query.filters(), _page_start(query.after), query.limit, query.sort)
    words = query.words.split() if query.words else []
    rows = []
    for hit in page.hits:
        at, shown = _excerpt(hit["text"], [query.text] if query.text else words)
        hit = {**hit, "index": hit.pop("i"), "mode": hit["mode"] or None, "characters": len(hit["text"])}
        rows.append({**hit, "text": shown, "at": at})
    return {
        "hits": rows,
        "after": None if page.after is None else ",".join(map(repr, page.after)),
        "ranked": page.ranked,
    }


def form_choices(reader: Reader) -> Json:
    """What the fields of the search form offer for this run."""
    config = reader.config
    return {
        "rewards": [spec.name.rpartition(":")[2] for spec in config.rewards],
        "words": list(R1_WORDS),
        "sorts": list(SORTS),
        "longest": config.max_completion_length,
    }


def find_all(reader: Reader, query: FileQuery) -> Iterator[bytes]:
    """All hits, at most `EXPORTED`, as the bytes of a file in the query's format."""
    found = reader.hits(query.text, query.filters(), query.sort, EXPORTED)
    return export.jsonl(found) if query.format == "jsonl" else export.parquet(found)


def _excerpt(text: str, sought: list[str]) -> tuple[int, str]:
    """Where the shown part begins, and the shown part: around the first match, else from the start."""
    lower = text.lower()
    places = [place for word in sought if (place := lower.find(word.lower())) >= 0]
    start = max(0, min(places) - AROUND) if places else 0
    return start, text[start : start + SHOWN]


def _page_start(after: str | None) -> Place | None:
    if after is None:
        return None
    try:
        place = tuple(parse_json(f"[{after}]"))
        if not all(isinstance(part, int | float) for part in place):
            raise ValueError
        # Steps, groups and completions are whole; only the value sorted by is not.
        if (
            not all(isinstance(part, int) for part in place[-2:])
            or not -(2**63) <= min(place) <= max(place) < 2**63
        ):
            raise ValueError
        return place
    except ValueError:
        raise RunError(f"after = {after[:60]!r} is no place in a search. Search again.") from None
