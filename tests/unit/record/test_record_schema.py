"""Older databases are brought forward with a copy kept, newer ones are looked at only, and nothing is
half-migrated."""

import sqlite3
from pathlib import Path

import pytest

from tests.fakes import fake_config, make_step
from workbench.core.errors import RunError
from workbench.record import folder as record
from workbench.record import schema
from workbench.record.reader import Reader
from workbench.record.writer import Writer

ADD_COLUMN = "ALTER TABLE steps ADD COLUMN mood TEXT; CREATE TABLE moods (name TEXT);"


def test_an_older_database_is_migrated_and_its_copy_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    schema.open_writer(path).close()
    newer = [*schema.MIGRATIONS, ADD_COLUMN, lambda db: db.execute("INSERT INTO moods VALUES ('calm')")]
    db = schema.open_writer(path, newer)
    newest = len(schema.MIGRATIONS)
    assert schema.version(db) == newest + 2
    assert db.execute("SELECT name FROM moods").fetchone() == ("calm",)
    db.close()
    with sqlite3.connect(tmp_path / f"run.db.v{newest}") as old:
        assert schema.version(old) == newest
        assert old.execute("SELECT count(*) FROM sqlite_master WHERE name = 'moods'").fetchone() == (0,)


def test_a_migration_that_fails_leaves_the_old_database(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    schema.open_writer(path).close()
    with pytest.raises(RunError, match="cannot be written"):
        schema.open_writer(path, [*schema.MIGRATIONS, ADD_COLUMN, "SELECT * FROM nowhere;"])
    db = schema.open_writer(path)
    assert schema.version(db) == len(schema.MIGRATIONS)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'moods'").fetchone() == (0,)
    db.close()


def test_a_newer_database_is_read_and_never_written(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=2, samples=3))
    with Writer(folder) as writer:
        writer.step(make_step(0, groups=2, samples=3))
    with sqlite3.connect(folder.db_path) as db:
        db.execute("PRAGMA user_version = 99")
    before = folder.db_path.read_bytes()
    with pytest.raises(RunError, match=r"newer version.*format 99.*update the workbench"):
        Writer(folder)
    assert folder.db_path.read_bytes() == before
    reader = Reader(folder)
    assert reader.notice is not None and "format 99" in reader.notice
    assert reader.steps() == [0] and len(reader.groups(0)) == 2


def test_every_older_version_has_views_with_the_columns_of_today() -> None:
    newest = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(newest, Path("run.db"))
    tables = [row[0] for row in newest.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert sorted(schema.VIEWS) == list(range(1, len(schema.MIGRATIONS)))
    for number, script in schema.VIEWS.items():
        older = sqlite3.connect(":memory:", isolation_level=None)
        schema.migrate(older, Path("run.db"), schema.MIGRATIONS[:number])
        for statement in schema.statements(script):
            older.execute(statement)
        for table in tables:
            if "_fts" not in table:  # the index is asked for row numbers only
                named = f"SELECT {', '.join(columns(newest, table))} FROM {table}"
                assert older.execute(named).fetchall() == []


def columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[0] for row in db.execute(f"SELECT name FROM pragma_table_info('{table}')")]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    schema.open_writer(tmp_path / "run.db").close()
    db = schema.open_reader(tmp_path / "run.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM steps")
    db.close()


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    folder.db_path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunError, match="file is not a database"):
        Writer(folder)
    with pytest.raises(RunError, match="cannot be read"):
        Reader(folder).steps()


def test_the_tables_are_those_the_docs_describe() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(db, Path("run.db"))
    page = (Path(__file__).parents[3] / "docs" / "run-folder.md").read_text()
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    for table in (name for name in names if "_fts_" not in name and not name.startswith("sqlite_")):
        assert table in page, f"docs/run-folder.md does not name the table {table}"
        for column in columns(db, table):
            assert column in page, f"docs/run-folder.md does not name {table}.{column}"
