"""What people say about a run: kept beside its record, by words and not by rows, and readable from anywhere."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes import fake_config
from workbench.core.errors import RunError
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes, Visit, values

STEP_3 = Visit(3)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(record.create(tmp_path, fake_config()))


def test_reading_notes_creates_no_file(notes: Notes) -> None:
    assert notes.ratings() == [] and notes.kept("pin") == {}
    assert not notes.path.exists()


def test_a_thumb_is_kept_changed_and_taken_back(notes: Notes) -> None:
    notes.thumb(STEP_3, "p", "a completion", True)
    notes.thumb(STEP_3, "p", "another", False)
    assert [(one.text, one.thumb, one.visit) for one in notes.ratings()] == [
        ("a completion", True, STEP_3),
        ("another", False, STEP_3),
    ]
    notes.thumb(STEP_3, "p", "a completion", False)
    notes.thumb(STEP_3, "p", "another", None)
    assert [(one.text, one.thumb) for one in notes.ratings()] == [("a completion", False)]


def test_thumbs_are_1_and_0_and_places_lie_evenly_between(notes: Notes) -> None:
    notes.rank(STEP_3, "p", {"a": 1, "b": 2, "c": 2, "d": 3, "e": 5})
    notes.thumb(STEP_3, "q", "a", True)
    notes.thumb(STEP_3, "q", "b", False)
    assert values(notes.ratings()) == {
        ("p", "a"): 1.0, ("p", "b"): 0.75, ("p", "c"): 0.75, ("p", "d"): 0.5, ("p", "e"): 0.0,
        ("q", "a"): 1.0, ("q", "b"): 0.0,
    }  # fmt: skip


def test_the_newest_rating_of_a_text_counts_and_a_single_place_has_no_value(notes: Notes) -> None:
    notes.thumb(STEP_3, "p", "a", False)
    notes.thumb(Visit(9, "eval", "greedy"), "p", "a", True)
    notes.rank(STEP_3, "q", {"alone": 1})
    assert values(notes.ratings()) == {("p", "a"): 1.0}


def test_a_place_below_1_is_refused(notes: Notes) -> None:
    with pytest.raises(RunError, match="place 0 does not exist: the best sample has place 1"):
        notes.rank(STEP_3, "p", {"a": 0})


def test_anything_can_be_kept_under_a_kind_and_dropped(notes: Notes) -> None:
    notes.keep("pin", "12/abc", {"why": "the fork"})
    notes.keep("pin", "3/def")
    notes.keep("title", "run", "the long one")
    notes.drop("pin", "3/def")
    assert notes.kept("pin") == {"12/abc": {"why": "the fork"}}
    assert notes.kept("title") == {"run": "the long one"}


def test_several_programs_write_at_once_and_nothing_is_lost(notes: Notes) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: notes.thumb(STEP_3, "p", f"completion {i}", i % 2 == 0), range(40)))
    assert {rating.text for rating in notes.ratings()} == {f"completion {i}" for i in range(40)}


def test_odd_characters_are_kept_as_they_are(notes: Notes) -> None:
    notes.thumb(STEP_3, "p", "nul \x00 and ‮ override", True)
    assert notes.ratings()[0].text == "nul \x00 and ‮ override"


def test_notes_of_a_newer_version_are_not_written_and_a_damaged_file_is_named(notes: Notes) -> None:
    notes.keep("title", "run", "mine")
    with sqlite3.connect(notes.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RunError, match="newer version"):
        notes.keep("title", "run", "yours")
    assert notes.kept("title") == {"run": "mine"}
    notes.path.write_bytes(b"no database " * 500)
    with pytest.raises(RunError, match=r"notes\.db cannot be read"):
        notes.ratings()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not there"):
        Notes(RunFolder(tmp_path / "gone")).keep("title", "run", "x")
