"""Finds samples by text and by number: candidates from the full-text index, then an exact comparison; sorted, paged
by the last hit seen.

In: a connection, a text, filters and an order. Out: pages of plain rows, each with the key of the next page.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

from workbench.core.errors import RunError

Sort = Literal["newest", "oldest", "best", "worst", "longest", "shortest", "up", "down", "share"]
SORTS: tuple[Sort, ...] = get_args(Sort)
Place = tuple[float, ...]
"""Sort keys of a page's last hit: where the next page begins."""

INDEXED = "(SELECT coalesce(max(id), 0) FROM samples_fts_docsize)"
RANKED = 20_000
"""Hits of a text, the newest ones, that an order by a number looks at."""
FEW = 5_000
"""Up to so many groups, their samples are listed first."""
_FIRST = "(SELECT min(sample_index) FROM samples f WHERE f.step_id = s.step_id AND f.group_id = s.group_id)"
_VALUE = "SELECT {} FROM sample_rewards r WHERE r.sample_id = s.id AND r.name = ?"
_OF_PROMPTS = (
    "s.id IN (SELECT o.id FROM groups v JOIN samples o ON o.step_id = v.step_id AND o.group_id = v.id "
    "WHERE v.prompt_id IN ({}))"
)
_PROMPT_OF = "(SELECT v.prompt_id FROM groups v WHERE v.id = s.group_id) IN ({})"
_KEYS: dict[Sort, tuple[tuple[str, ...], bool]] = {
    "newest": (("s.id",), True),
    "oldest": (("s.id",), False),
    "best": (("s.reward", "s.length", "s.id"), True),  # the index samples_reward, read backwards
    "worst": (("s.reward", "s.length", "s.id"), False),
    "longest": (("s.length", "s.id"), True),
    "shortest": (("s.length", "s.id"), False),
    "up": (("s.advantage", "s.id"), True),
    "down": (("s.advantage", "s.id"), False),
    "share": (("s.gradient_share", "s.id"), True),
}
"""Sort keys of each order, most significant first, and whether the largest comes first."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on samples. Ranges include both ends; None is no condition."""

    kind: Literal["train", "eval"] | None = None
    step_min: int | None = None
    step_max: int | None = None
    reward_min: float | None = None
    reward_max: float | None = None
    length_min: int | None = None
    length_max: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    advantage: Literal["up", "down", "zero"] | None = None
    right: bool | None = None
    style: str | None = None
    prompt_id: str | None = None
    failed_reward: str | None = None
    """Name of a reward that gave no value for the sample."""
    disagree: tuple[str, str] | None = None
    """Two reward names of which one is above 0 and the other is not."""
    words: tuple[str, ...] = ()
    """Whole words of which the completion must contain at least one, case ignored."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Filters":
        """From values by name. Raises RunError for an unknown name."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise RunError(f"There is no filter {name!r}. There are: {', '.join(names)}.")
        return cls(**given)


class Page(NamedTuple):
    """Some hits, the key of the next page (None: there is none), and how many hits were sorted (None: all)."""

    hits: list[dict[str, Any]]
    after: Place | None
    ranked: int | None


def search(
    db: sqlite3.Connection,
    text: str,
    filters: Filters,
    after: Place | None = None,
    limit: int = 50,
    sort: Sort = "newest",
) -> Page:
    """The `limit` hits after the key `after`. A hit: id, step, kind, mode, k, i, prompt_id, question, text, reward,
    right, advantage, length, finish_reason, style.

    An order by a number leaves out samples without it. With a text it sorts the newest `RANKED` hits only, and
    `ranked` says so. Raises RunError.
    """
    if not 1 <= limit <= 10_000:
        raise RunError(f"limit = {limit}: a page holds 1 to 10000 samples.")
    if sort not in _KEYS:
        raise RunError(f"sort = {sort!r}: choose one of {', '.join(SORTS)}.")
    keys, largest_first = _KEYS[sort]
    if after is not None and len(after) != len(keys):
        raise RunError(f"after = {after!r} does not belong to the order {sort!r}. Search again.")
    db.create_function("has_word", 2, _has_word, deterministic=True)
    found: dict[int, Place] = {}
    ranked = None
    for source in _sources(db, text, filters.words):
        query, arguments = _places(*_by_reward(source, filters), after, limit + 1, sort)
        rows = db.execute(query, arguments).fetchall()
        found.update({int(row[-1]): tuple(row) for row in rows})
        if len(keys) > 1 and source.matched and len(rows) > limit and _many(db, source):
            ranked = RANKED
    order = sorted(found.values(), reverse=largest_first)
    page = order[:limit]
    return Page(
        _hits(db, [int(place[-1]) for place in page]), page[-1] if len(order) > limit else None, ranked
    )


def all_hits(
    db: sqlite3.Connection, text: str, filters: Filters, sort: Sort, most: int
) -> Iterator[dict[str, Any]]:
    """The first `most` hits, page after page."""
    after, left = None, most
    while left > 0:
        page = search(db, text, filters, after, min(left, 1000), sort)
        yield from page.hits
        after, left = page.after, left - len(page.hits)
        if after is None:
            return


class Source(NamedTuple):
    """Tables and conditions that give hits, ordered by `id`."""

    tables: str
    where: str
    arguments: tuple[Any, ...]
    id: str
    matched: bool = False
    """Whether the full-text index gives them."""


def _sources(db: sqlite3.Connection, text: str, words: Iterable[str]) -> list[Source]:
    """Completions that contain `text` (case ignored) and one of the words, and completions of questions that contain
    `text`. The index matches words; the exact text is compared afterwards. The newest samples, not indexed yet, are
    scanned."""
    spelled = [found for word in words if (found := " ".join(re.findall(r"\w+", word.lower())))]
    pattern = "|".join(re.escape(word) for word in spelled)
    holds = "instr(lower({}), lower(?)) > 0"
    exact = [(holds.format("s.completion"), text)] if text else []
    worded = [("has_word(s.completion, ?)", pattern)] if spelled else []
    phrase = f"({_phrase(text)})" if re.search(r"\w", text) else ""
    any_word = f"({' OR '.join(_quoted(word) for word in spelled)})" if spelled else ""
    match = " AND ".join(filter(None, [phrase, any_word]))
    if match:
        scanned = _source([(f"s.id > {INDEXED}", None), *exact, *worded])
        tables = "samples_fts CROSS JOIN samples s ON s.id = samples_fts.rowid"
        known = _source([("samples_fts MATCH ?", match), *exact], tables, "samples_fts.rowid", matched=True)
        sources = [scanned, known]
    else:
        sources = [_source(exact)]
    if text:
        where, arguments = _of_questions(db, text, holds.format("question"))
        also = _source(worded)
        sources.append(
            Source("samples s", f"{where} AND {also.where}", (*arguments, *also.arguments), "s.id")
        )
    return sources


def _by_reward(source: Source, filters: Filters) -> tuple[Source, Filters]:
    """Replaces a scan of all samples by a scan of `sample_rewards`, which is ordered by sample, where a filter is on
    what rewards gave: only samples that pass are looked up."""
    if source.tables != "samples s":
        return source, filters
    names: tuple[str, ...]
    if filters.failed_reward is not None:
        tables, rest = "sample_rewards a", replace(filters, failed_reward=None)
        where, names = "a.name = ? AND a.value IS NULL", (filters.failed_reward,)
    elif filters.disagree is not None:
        tables, rest = (
            "sample_rewards a CROSS JOIN sample_rewards b ON b.sample_id = a.sample_id",
            replace(filters, disagree=None),
        )
        where, names = "a.name = ? AND b.name = ? AND (a.value > 0) <> (b.value > 0)", filters.disagree
    else:
        return source, filters
    tables = f"{tables} CROSS JOIN samples s ON s.id = a.sample_id"
    return Source(tables, f"{where} AND {source.where}", (*names, *source.arguments), "a.sample_id"), rest


def _source(
    conditions: Sequence[tuple[str, str | None]],
    tables: str = "samples s",
    id: str = "s.id",
    matched: bool = False,
) -> Source:
    where = " AND ".join(condition for condition, _ in conditions) or "1"
    return Source(tables, where, tuple(value for _, value in conditions if value is not None), id, matched)


def _of_questions(db: sqlite3.Connection, text: str, holds: str) -> tuple[str, tuple[str, ...]]:
    """The condition that a sample's question contains the text."""
    prompts = f"SELECT prompt_id FROM prompts WHERE {holds}"
    arguments: tuple[str, ...] = (text,)
    if re.search(r"\w", text):
        prompts = f"SELECT prompt_id FROM prompts_fts WHERE prompts_fts MATCH ? AND {holds}"
        arguments = (_phrase(text), text)
    some = f"SELECT 1 FROM groups WHERE prompt_id IN ({prompts}) LIMIT {FEW}"
    [(groups,)] = db.execute(f"SELECT count(*) FROM ({some})", arguments)
    # Few groups: list their samples first. Many: a scan from the newest sample meets enough of them soon.
    return (_OF_PROMPTS if groups < FEW else _PROMPT_OF).format(prompts), arguments


def _phrase(text: str) -> str:
    return _quoted(" ".join(re.findall(r"\w+", text))) + (" *" if text[-1].isalnum() else "")


def _quoted(words: str) -> str:
    return f'"{words}"'


def _has_word(text: str, pattern: str) -> bool:
    return re.search(rf"\b(?:{pattern})\b", text, re.IGNORECASE) is not None


def _many(db: sqlite3.Connection, source: Source) -> bool:
    """Whether the index has more hits than are sorted."""
    query = f"SELECT 1 FROM samples_fts WHERE samples_fts MATCH ? LIMIT 1 OFFSET {RANKED}"
    return db.execute(query, source.arguments[:1]).fetchone() is not None


def _places(
    source: Source, filters: Filters, after: Place | None, limit: int, sort: Sort
) -> tuple[str, list[Any]]:
    """A query for the sort keys of the hits after `after`, in order, and its arguments."""
    keys, largest_first = _KEYS[sort]
    if keys == ("s.id",):
        keys = (source.id,)  # the order of the tables
    way = " DESC" if largest_first else ""
    where, arguments = conditions(filters)
    if len(keys) > 1:
        where.append(f"{keys[0]} IS NOT NULL")
    later = f"({', '.join(keys)}) {'<' if largest_first else '>'} ({', '.join('?' * len(keys))})"
    ranks = len(keys) > 1 and source.matched
    if after is not None and not ranks:
        where.append(later)
        arguments.extend(after)
    # CROSS JOIN fixes the order of the loops: scan the samples, look up their step, stop early.
    # Sorted by a number: a full scan takes the same time for every filter, an index may visit all samples one by one.
    scan = " NOT INDEXED" if len(keys) > 1 and filters != Filters() and source.tables == "samples s" else ""
    chosen = f"FROM {source.tables}{scan} CROSS JOIN steps t ON t.id = s.step_id WHERE {source.where} AND {' AND '.join(where)}"
    given = [*source.arguments, *arguments]
    if not ranks:
        order = ", ".join(f"{key}{way}" for key in keys)
        return f"SELECT {', '.join(keys)} {chosen} ORDER BY {order} LIMIT ?", [*given, limit]
    columns = ", ".join(f"{key} AS key{place}" for place, key in enumerate(keys))
    names = [f"key{place}" for place in range(len(keys))]
    newest = f"SELECT {columns} {chosen} ORDER BY {source.id} DESC LIMIT {RANKED}"
    beyond = ""
    if after is not None:
        beyond = f" WHERE ({', '.join(names)}) {'<' if largest_first else '>'} ({', '.join('?' * len(keys))})"
        given.extend(after)
    order = ", ".join(f"{name}{way}" for name in names)
    return f"SELECT {', '.join(names)} FROM ({newest}){beyond} ORDER BY {order} LIMIT ?", [*given, limit]


def _hits(db: sqlite3.Connection, ids: list[int]) -> list[dict[str, Any]]:
    """The samples of a page, in its order."""
    rows = db.execute(
        f"SELECT s.id, t.step, t.kind, t.mode, g.group_index AS k, s.sample_index - {_FIRST} AS i, g.prompt_id, "
        "p.question, s.completion AS text, s.reward, s.correct AS right, s.advantage, s.length, s.finish_reason, s.style "
        "FROM samples s JOIN steps t ON t.id = s.step_id JOIN groups g ON g.id = s.group_id "
        f"LEFT JOIN prompts p ON p.prompt_id = g.prompt_id WHERE s.id IN ({', '.join('?' * len(ids))})",
        ids,
    ).fetchall()
    found = {
        row["id"]: {**dict(row), "right": None if row["right"] is None else bool(row["right"])}
        for row in rows
    }
    return [found[id] for id in ids]


def conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    """The filters but for words, as SQL conditions on samples s and steps t."""
    where, arguments = ["t.current"], []
    ranges = [
        ("t.kind = ?", filters.kind),
        ("t.step >= ?", filters.step_min),
        ("t.step <= ?", filters.step_max),
        ("s.reward >= ?", filters.reward_min),
        ("s.reward <= ?", filters.reward_max),
        ("s.length >= ?", filters.length_min),
        ("s.length <= ?", filters.length_max),
        ("s.finish_reason = ?", filters.finish_reason),
        ("s.style = ?", filters.style),
        (_OF_PROMPTS.format("?"), filters.prompt_id),
        ("s.correct = ?", None if filters.right is None else int(filters.right)),
        (f"EXISTS ({_VALUE.format('1')} AND r.value IS NULL)", filters.failed_reward),
    ]
    for condition, value in ranges:
        if value is not None:
            where.append(condition)
            arguments.append(value)
    signs = {"up": "s.advantage > 0", "down": "s.advantage < 0", "zero": "s.advantage = 0"}
    if filters.advantage is not None:
        where.append(signs[filters.advantage])
    if filters.disagree is not None:
        where.append(f"({_VALUE.format('r.value > 0')}) <> ({_VALUE.format('r.value > 0')})")
        arguments.extend(filters.disagree)
    return where, arguments
