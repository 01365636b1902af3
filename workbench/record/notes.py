"""notes.db: what users add to a run: ratings of completions, pins, mutes, a title.

Written by app, command line and notebook; the worker only reads it. A rating belongs to a prompt and the text of a
completion, not to a row of run.db: it can be given before the step is recorded, and a resume keeps it.
"""

import hashlib
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.errors import RunError
from workbench.record import schema
from workbench.record.folder import RunFolder

_FIRST = """
CREATE TABLE ratings (
  prompt_id TEXT NOT NULL, text_hash TEXT NOT NULL, visit TEXT NOT NULL,
  thumb INTEGER, place INTEGER, text TEXT NOT NULL, time REAL NOT NULL,
  PRIMARY KEY (prompt_id, text_hash, visit)) WITHOUT ROWID;
CREATE TABLE kept (
  kind TEXT NOT NULL, key TEXT NOT NULL, value_json TEXT NOT NULL, time REAL NOT NULL,
  PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""

MIGRATIONS: tuple[schema.Migration, ...] = (_FIRST,)
"""Entry n leads from version n to n + 1. Never edit one that was released: append."""


class Visit(NamedTuple):
    """Where a prompt was sampled: a training step, or an evaluation after that many steps."""

    step: int
    kind: str = "train"
    mode: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.mode}/{self.step}"

    @classmethod
    def parse(cls, text: str) -> "Visit":
        """From `str(visit)`."""
        kind, mode, step = text.split("/")
        return cls(int(step), kind, mode)


class Rating(NamedTuple):
    """A user's rating of one completion."""

    prompt_id: str
    text: str
    visit: Visit
    thumb: bool | None
    """Good, bad, or no thumb."""
    place: int | None
    """1 for the best of its group, where the group was ranked; equal places are a tie."""
    time: float


class Notes:
    """The notes of one run. Every call opens the file anew; several programs may write at once."""

    def __init__(self, folder: RunFolder | Path | str) -> None:
        folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
        self.path = folder.notes_path

    # -- ratings -------------------------------------------------------------------------------------------

    def thumb(self, visit: Visit, prompt_id: str, text: str, good: bool | None) -> None:
        """Rates a completion as good or bad; None removes the thumb. The newest thumb of a text counts, whatever its
        visit. Raises RunError where notes cannot be written."""
        self._rate(visit, prompt_id, {text: good}, "thumb")

    def rank(self, visit: Visit, prompt_id: str, places: Mapping[str, int | None]) -> None:
        """Gives completions of one group their places, 1 the best; None removes one. Raises RunError."""
        wrong = [place for place in places.values() if place is not None and place < 1]
        if wrong:
            raise RunError(f"place {wrong[0]} does not exist: the best sample has place 1.")
        self._rate(visit, prompt_id, places, "place")

    def ratings(self) -> list[Rating]:
        """All of them, oldest first."""
        rows = self._all(
            "SELECT prompt_id, text, visit, thumb, place, time FROM ratings "
            "WHERE thumb IS NOT NULL OR place IS NOT NULL ORDER BY time, text_hash"
        )
        return [
            Rating(
                row["prompt_id"], row["text"], Visit.parse(row["visit"]),
                None if row["thumb"] is None else bool(row["thumb"]), row["place"], row["time"],
            )
            for row in rows
        ]  # fmt: skip

    def _rate(self, visit: Visit, prompt_id: str, given: Mapping[str, Any], column: str) -> None:
        now = time.time()
        rows = [
            (prompt_id, _hash(text), str(visit), None if value is None else int(value), text, now)
            for text, value in given.items()
        ]
        with closing(self._writer()) as db:
            db.execute("BEGIN IMMEDIATE")
            if column == "thumb":
                same = [row[:2] for row in rows]
                db.executemany("UPDATE ratings SET thumb = NULL WHERE prompt_id = ? AND text_hash = ?", same)
            db.executemany(
                f"INSERT INTO ratings (prompt_id, text_hash, visit, {column}, text, time) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                f"SET {column} = excluded.{column}, time = excluded.time",
                rows,
            )
            db.execute("COMMIT")

    # -- anything else -------------------------------------------------------------------------------------

    def keep(self, kind: str, key: str, value: Any = True) -> None:
        """Stores a JSON value under a kind (pin, mute, title, ...) and a key, replacing the former one. Raises
        RunError."""
        with closing(self._writer()) as db:
            db.execute(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", (kind, key, json.dumps(value), time.time())
            )

    def drop(self, kind: str, key: str) -> None:
        """Removes a value. Raises RunError."""
        with closing(self._writer()) as db:
            db.execute("DELETE FROM kept WHERE kind = ? AND key = ?", (kind, key))

    def kept(self, kind: str) -> dict[str, Any]:
        """Everything of a kind by key, oldest first."""
        rows = self._all("SELECT key, value_json FROM kept WHERE kind = ? ORDER BY time", (kind,))
        return {row["key"]: json.loads(row["value_json"]) for row in rows}

    # -- inside --------------------------------------------------------------------------------------------

    def _writer(self) -> sqlite3.Connection:
        if not self.path.parent.is_dir():
            raise RunError(f"{self.path.parent} is not there (any more), so no note can be kept about it.")
        return schema.open_writer(self.path, MIGRATIONS)

    def _all(self, query: str, arguments: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        if not self.path.exists():
            return []
        try:
            with closing(schema.open_reader(self.path, {})) as db:
                # A file created a moment ago has no tables yet, hence no notes.
                tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
                return db.execute(query, arguments).fetchall() if {"ratings", "kept"} <= tables else []
        except sqlite3.Error as error:
            raise RunError(f"{self.path} cannot be read ({error}). Copy it again, or remove it.") from error


def values(ratings: Iterable[Rating]) -> dict[tuple[str, str], float]:
    """The value of each rated completion, 0 to 1, by (prompt_id, text).

    A thumb is 1 or 0. In a group ranked from 1 to m, place p has the value (m - p) / (m - 1) where there is no thumb;
    a single place has none. The newest rating counts.
    """
    ratings = sorted(ratings, key=lambda rating: rating.time)
    places: dict[tuple[str, Visit], set[int]] = defaultdict(set)
    for rating in ratings:
        if rating.place is not None:
            places[rating.prompt_id, rating.visit].add(rating.place)
    found = {}
    for rating in ratings:
        if rating.thumb is not None:
            found[rating.prompt_id, rating.text] = float(rating.thumb)
        elif rating.place is not None and len(mine := places[rating.prompt_id, rating.visit]) > 1:
            found[rating.prompt_id, rating.text] = (max(mine) - rating.place) / (max(mine) - 1)
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
