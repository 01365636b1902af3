"""A run that an earlier version recorded (tests/data/run_v1, format 1) reads the same today: as it is, and migrated.

tests/data/run_v1.json is what the version that made the run read from it.
"""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import main
from workbench.core.config import RunConfig
from workbench.diagnose import doctor
from workbench.diagnose.whatif import settings_over_time
from workbench.launch import state
from workbench.record import schema
from workbench.record.reader import Reader
from workbench.record.search import Filters
from workbench.record.writer import Writer

DATA = Path(__file__).parents[2] / "data"
EXPECTED: dict[str, Any] = json.loads((DATA / "run_v1.json").read_text())


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def what_is_read(reader: Reader) -> dict[str, Any]:
    samples = reader.samples()
    sums = EXPECTED["samples_sums"]
    return rounded({
        "series": reader.series(names=list(EXPECTED["series"]["train"])[1:]),
        "ends": reader.ends(["reward", "kl"]),
        "ribbon": reader.ribbon(),
        "phases": [sorted(phases) for phases in reader.phases()],
        "groups": reader.groups(1),
        "group": reader.group(1, 0, arrays=True),
        "watched": reader.watched(),
        "history": reader.prompt_history(reader.watched()[0]),
        "prompts": reader.prompts(),
        "scores": reader.scores(1),
        "search": reader.search("answer", Filters(kind="train", right=True)),
        "hits": list(reader.hits("", Filters(advantage="up"), "best", 3)),
        "metrics_columns": list(reader.metrics(["reward"]).columns),
        "samples_columns": list(samples.columns),
        "samples_sums": {name: float(samples[name].sum()) for name in sums},
        "answers": next(iter(reader.completions(1, 1, tokens=True))),
        "live_beta": reader.current_settings()["beta"],
    })  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(DATA / "run_v1", tmp_path / "run_v1"))


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_run_of_format_1_reads_as_it_did_and_is_not_written_to(copy: Path) -> None:
    before = contents(copy)
    assert what_is_read(Reader(copy)) == EXPECTED
    assert contents(copy) == before


class Refused(sqlite3.Connection):
    """What a user without write access to the folder gets for a log of WAL; root is never refused."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        raise sqlite3.OperationalError("unable to open database file")


def test_a_run_of_format_1_reads_from_a_medium_that_cannot_be_written(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(address: str, **options: Any) -> sqlite3.Connection:
        refused = "mode=ro" in address and "immutable" not in address
        return real(address, factory=Refused if refused else sqlite3.Connection, **options)

    monkeypatch.setattr(schema.sqlite3, "connect", connect)
    assert what_is_read(Reader(copy)) == EXPECTED


def test_a_run_of_format_1_is_migrated_by_its_next_writer_and_reads_the_same(copy: Path) -> None:
    with Writer(Reader(copy).folder) as writer:
        assert writer.attempt == 1
    with sqlite3.connect(copy / "run.db") as db:
        assert schema.version(db) == len(schema.MIGRATIONS)
        assert db.execute("SELECT DISTINCT stage FROM steps").fetchall() == [("grpo",)]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("INSERT INTO samples_fts (samples_fts, rank) VALUES ('integrity-check', 1)")
        assert db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'steps'").fetchone() == (6,)
    with sqlite3.connect(copy / "run.db.v1") as backup:
        assert schema.version(backup) == 1
    assert what_is_read(Reader(copy)) == EXPECTED


@pytest.mark.parametrize("migrated", [False, True])
def test_events_of_former_kinds_are_found_under_the_name_of_today(copy: Path, migrated: bool) -> None:
    if migrated:
        with Writer(Reader(copy).folder) as writer:
            writer.event("paused", {"text": "once more"}, 2)
    reader = Reader(copy)
    paused = reader.events(kind="paused")
    assert [event["kind"] for event in paused] == ["paused"] * (1 + migrated)
    assert paused[0]["data"]["text"].startswith("The disk is nearly full")
    assert "rewards_unavailable" in {event["kind"] for event in reader.events()}
    assert reader.alarms()[0]["claim"] == "Entropy fell to 20 %"


def test_settings_state_and_report_of_a_run_of_format_1_are_understood(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(copy)
    assert reader.config == RunConfig.build(None, {
        "steps": 2, "prompts_per_step": 2, "num_generations": 4, "eval_problems": 8, "watched_prompts": 2,
        "watched_samples": 2, "eval_steps": 2, "save_steps": 2, "threads": 1, "wandb": "off", "run_name": "v1",
    })  # fmt: skip
    assert [config.beta for _, config in settings_over_time(reader)] == [0.0, 0.02]
    assert state(reader.folder).state == "finished"
    assert "Entropy fell" in doctor.words(doctor.report(reader, "finished", over=True))
    assert main(["show", str(copy), "--step", "1", "--group", "0", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert rounded(shown["samples"][0]["logprob_sum"]) == EXPECTED["group"]["samples"][0]["logprob_sum"]
    assert shown["samples"][0].keys() == Reader(copy).group(1, 0)["samples"][0].keys()
