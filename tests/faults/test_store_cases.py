"""Faults of the store: kills, full disks, locks, damage, age and size. What was committed is there and complete."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import fake_config, make_step, write_fake_run
from tests.helpers import wait_until
from workbench.core.errors import DiskFull, RunError
from workbench.core.types import Score
from workbench.diagnose.metrics import step_metrics
from workbench.record import checkpoints, disk_space, schema, tokens
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.search import Filters
from workbench.record.status import Status
from workbench.record.writer import Writer
from workbench.train.guards import Disk

ROOT = Path(__file__).parents[2]


# Tables that stay short, and the full-text index, which walks its hits.
SMALL = ("SCAN alarms", "SCAN attempts", "SCAN metric_names", "SCAN samples_fts", "SCAN prompts_fts")
WHOLE_STEPS = """
SELECT t.step, count(DISTINCT g.id), count(DISTINCT s.id), count(r.value) FROM steps t
JOIN groups g ON g.step_id = t.id JOIN samples s ON s.group_id = g.id
JOIN sample_rewards r ON r.sample_id = s.id
WHERE t.current GROUP BY t.id ORDER BY t.step"""


class Victims:
    """Children that work until they are killed."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.store_writer"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def kill_one(self, work: str, folder: RunFolder, after: int) -> int:
        """Starts a child, kills it with -9 once it has reported `after` units of work, and returns the last it
        reported."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{work} {folder.path}\n")
        lines = [line.strip() for _, line in zip(range(1 + after), self.process.stdout, strict=False)]
        os.kill(int(next(line for line in lines if line.startswith("pid")).split()[1]), signal.SIGKILL)
        while (line := self.process.stdout.readline().strip()) != "gone":
            lines.append(line)
        return max(int(line) for line in lines if not line.startswith("pid"))


@pytest.fixture
def victims() -> Iterator[Victims]:
    found = Victims()
    yield found
    assert found.process.stdin is not None
    found.process.stdin.close()
    found.process.wait(timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path, fake_config(groups=3, samples=4))


def test_case_19_groups_without_reward_spread_are_split_by_side(folder: RunFolder) -> None:
    step = make_step(0, groups=4, samples=2)
    rewards = [1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0, 0.0]
    right = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    step.scores_B = [
        Score({"correct": is_right}, {}, reward) for reward, is_right in zip(rewards, right, strict=True)
    ]
    metrics = step_metrics(step, fake_config())
    sides = {name: metrics[f"frac_reward_zero_std/{name}"] for name in ("all_right", "all_wrong", "tied")}
    assert (
        sides == {"all_right": 0.25, "all_wrong": 0.25, "tied": 0.25}
        and metrics["frac_reward_zero_std"] == 0.75
    )
    with Writer(folder) as writer:
        writer.step(step)
    assert {row["k"]: row["dead"] for row in Reader(folder).groups(0)} == {
        0: "right",
        1: "wrong",
        2: "tied",
        3: "",
    }


@pytest.mark.parametrize("kills", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_case_32_kills_of_the_writer_lose_nothing_but_the_unfinished_step(
    folder: RunFolder, victims: Victims, kills: int
) -> None:
    dice = random.Random(32)
    for _ in range(kills):
        last = victims.kill_one("steps", folder, after=dice.randint(1, 4))
        with sqlite3.connect(folder.db_path) as db:
            assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
            per_step = db.execute(WHOLE_STEPS).fetchall()
        # Whole steps without a gap, and all that the child reported are safe; at most one more, unreported.
        assert per_step == [(step, 3, 12, 24) for step in range(len(per_step))]
        assert last <= len(per_step) - 1 <= last + 1
    reader = Reader(folder)
    assert reader.group(last, 2)["samples"][3]["token_ids"]
    with Writer(folder):
        assert [path for path in folder.tokens.iterdir() if path.name.startswith(".")] == []


def test_case_33_a_full_disk_damages_nothing_and_writing_continues_when_there_is_space(
    folder: RunFolder,
) -> None:
    writer = Writer(folder)
    writer.step(make_step(0, groups=3, samples=4))
    writer.flush()
    pages = writer._db.execute("PRAGMA page_count").fetchone()[0]
    writer._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    pushed = 50
    for step in range(1, pushed):
        writer.step(make_step(step, groups=3, samples=4))  # nothing is lost, and the loop does not wait
    with pytest.raises(DiskFull, match=r"database or disk is full.*free some disk space"):
        writer.flush()
    recorded = Reader(folder).steps()
    assert recorded == list(range(len(recorded))) and 1 <= len(recorded) < pushed
    with sqlite3.connect(folder.db_path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    writer._db.execute(f"PRAGMA max_page_count = {pages + 10_000}")
    writer.retry()
    writer.close()
    assert Reader(folder).steps() == list(range(pushed))


def test_case_33_a_run_waits_paused_while_the_record_does_not_fit_and_goes_on_by_itself(
    folder: RunFolder,
) -> None:
    with Writer(folder) as writer, Control(folder, Status()) as control:
        control.record_to(writer.event)
        control.running()
        writer._db.execute(
            f"PRAGMA max_page_count = {writer._db.execute('PRAGMA page_count').fetchone()[0] + 1}"
        )
        for step in range(10):
            writer.step(make_step(step, groups=3, samples=4))
        wait_until(lambda: writer.failure)
        waiting = threading.Thread(target=Disk(folder, control, writer).wait)
        waiting.start()
        wait_until(lambda: folder.status().get("state") == "paused")
        assert "disk is full" in wait_until(lambda: folder.status()["reason"]) and waiting.is_alive()
        writer._db.execute("PRAGMA max_page_count = 100000")
        waiting.join(30)
        assert not waiting.is_alive() and control.status.state == "running"
    assert Reader(folder).steps() == list(range(10))
    assert [event["kind"] for event in Reader(folder).events()] == ["paused"]


def disk(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """A disk of a terabyte with so many bytes free, one look after the other; the last figure stays."""
    figures = [*free]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        disk_space.shutil,
        "disk_usage",
        lambda place: usage(10**12, 0, figures.pop(0) if len(figures) > 1 else figures[0]),
    )


def test_case_33_little_space_costs_token_arrays_first_and_then_the_run_waits(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer(folder) as writer, Control(folder, Status()) as control:
        control.record_to(writer.event)
        disk(monkeypatch, 2 * 10**9)
        writer.step(make_step(0, groups=3, samples=4))
        writer.flush()
        guard = Disk(folder, control, writer)
        guard.wait()  # enough to go on
        disk(monkeypatch, 400 * 2**20, 400 * 2**20, 400 * 2**20, 3 * 10**9)
        guard.wait()
        writer.step(make_step(1, groups=3, samples=4))
    reader = Reader(folder)
    assert reader.series()["train"]["record/tokens_dropped"] == [1.0, None]
    [held] = reader.events(kind="paused")
    assert held["data"]["text"].startswith(
        "The disk is nearly full: 400 MiB free, and the run waits below 500 MiB."
    )


def test_case_33_a_user_may_resume_with_little_space_and_a_stop_is_obeyed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer(folder) as writer, Control(folder, Status()) as control:
        control.record_to(writer.event)
        guard = Disk(folder, control, writer)
        disk(monkeypatch, 10**6)
        folder.put("set", {"beta": 0.1})
        folder.put("resume")
        guard.wait()
        guard.wait()  # at the next boundary it does not wait again
        assert [command.command for command in control.poll(0)] == ["set"]
        disk(monkeypatch, 10**12)
        guard.wait()
        disk(monkeypatch, 10**6)
        folder.put("stop")
        guard.wait()
        assert control.stop_requested
    assert len(Reader(folder).events(kind="paused")) == 2


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A disk of 3 MiB in memory; None where this machine permits no mount."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True
        ).returncode
    )
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_case_33_a_disk_that_is_really_full_pauses_the_run_and_loses_nothing(
    tiny_disk: Path | None, tmp_path: Path
) -> None:
    folder = record.create(tiny_disk or tmp_path, fake_config(groups=3, samples=4))
    with Writer(folder) as writer, Control(folder, Status()) as control:
        control.running()
        filler = folder.root / "another-file"
        writer.step(make_step(0, groups=3, samples=4))
        writer.flush()
        if tiny_disk is None:
            writer._db.execute(
                f"PRAGMA max_page_count = {writer._db.execute('PRAGMA page_count').fetchone()[0]}"
            )
        else:
            filler.write_bytes(b"x" * (shutil.disk_usage(tiny_disk).free - 8192))
        for step in range(1, 20):
            writer.step(make_step(step, groups=3, samples=4))
        wait_until(lambda: writer.failure)
        with pytest.raises(DiskFull):
            checkpoints.save(
                folder, 1, lambda place: (place / "w").write_bytes(b"x" * 2**22)
            ) if tiny_disk else writer.flush()
        waiting = threading.Thread(target=Disk(folder, control, writer).wait)
        waiting.start()
        wait_until(lambda: control.status.state == "paused")
        filler.unlink(missing_ok=True)
        writer._db.execute("PRAGMA max_page_count = 100000")
        waiting.join(30)
        assert not waiting.is_alive()
    assert Reader(folder).steps() == list(range(20)) and checkpoints.listing(folder) == []


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from tests.fakes import fake_config, make_step
from workbench.core.errors import RunError
from workbench.record import checkpoints
from workbench.record.folder import RunFolder, create
what, path, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    if what == "create":
        create(path, fake_config())
    else:
        def write(place):
            save_file({"w": np.zeros(100_000, np.float32)}, place / "model.safetensors")
        checkpoints.save(RunFolder(path), 20, write)
except RunError as error:
    print(error)
    sys.exit(2)
"""


def limited(what: str, path: Path, limit: int) -> str:
    """What a process says to whom the system grants files of `limit` bytes only."""
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, what, str(path), str(limit)], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 2, process.stderr
    return process.stdout


def test_case_33_a_checkpoint_that_does_not_fit_leaves_the_one_before_it(folder: RunFolder) -> None:
    kept = checkpoints.save(folder, 10, lambda place: (place / "model.safetensors").write_bytes(b"x"))
    assert "after step 20 could not be written" in limited("checkpoint", folder.path, 10_000)
    assert checkpoints.latest(folder) == kept
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["LATEST", "step-000010"]


def test_case_33_token_arrays_that_do_not_fit_cost_no_row(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokens, "save_file", full)
    with Writer(folder) as writer:
        writer.step(make_step(0, groups=3, samples=4))
    reader = Reader(folder)
    assert reader.series()["train"]["record/tokens_dropped"] == [1.0] and len(reader.groups(0)) == 3
    assert reader.group(0, 0)["samples"][0]["token_ids"] is None and list(folder.tokens.iterdir()) == []


def test_case_34_a_lock_held_for_long_neither_blocks_the_loop_nor_loses_metrics(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[int] = []
    real = Writer._roll_back
    monkeypatch.setattr(Writer, "_roll_back", lambda self: (refusals.append(1), real(self)))
    writer = Writer(folder)
    writer._db.execute("PRAGMA busy_timeout = 20")
    holder = sqlite3.connect(folder.db_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    for step in range(5):
        writer.step(make_step(step, groups=3, samples=4))  # returns although nothing can be written
    wait_until(lambda: len(refusals) >= 3, what="the writer waits its time-out again and again")
    assert Reader(folder).steps() == []
    holder.execute("COMMIT")
    holder.close()
    writer.close()
    found = Reader(folder).series()["train"]
    assert found["step"] == [0, 1, 2, 3, 4] and None not in found["reward"]


def test_case_34_a_reader_in_a_long_transaction_does_not_block_the_writer(folder: RunFolder) -> None:
    with Writer(folder) as writer:
        writer.step(make_step(0, groups=3, samples=4))
        writer.flush()
        reader = schema.open_reader(folder.db_path)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM steps").fetchone()[0] == 1
        for step in range(1, 4):
            writer.step(make_step(step, groups=3, samples=4))
        writer.flush(timeout=30)
        assert reader.execute("SELECT count(*) FROM steps").fetchone()[0] == 1
        reader.close()
    assert Reader(folder).steps() == [0, 1, 2, 3]


def test_case_35_an_old_schema_is_migrated_with_its_copy_kept_and_a_newer_one_only_read(
    folder: RunFolder,
) -> None:
    with Writer(folder) as writer:
        writer.step(make_step(0, groups=3, samples=4))
    newer = [*schema.MIGRATIONS, "ALTER TABLE steps ADD COLUMN weather TEXT;"]
    schema.open_writer(folder.db_path, newer).close()
    assert folder.db_path.with_name(f"run.db.v{len(schema.MIGRATIONS)}").exists()
    with pytest.raises(RunError, match="newer version"):
        Writer(folder)
    reader = Reader(folder)
    assert reader.steps() == [0] and "newer version" in str(reader.notice)


@pytest.mark.parametrize("damage", ["corrupt", "truncated", "deleted", "half-copied"])
def test_case_36_a_damaged_run_is_listed_with_its_damage_and_others_are_untouched(
    tmp_path: Path, damage: str
) -> None:
    good = write_fake_run(tmp_path, steps=2, groups=2, samples=3)
    bad = RunFolder(tmp_path / "damaged")
    shutil.copytree(good.path, bad.path)
    content = bad.db_path.read_bytes()
    if damage == "corrupt":
        bad.db_path.write_bytes(b"garbage " * 1000)
    elif damage == "truncated":
        bad.db_path.write_bytes(content[: len(content) // 3])
    elif damage == "half-copied":
        bad.config_path.unlink()
    found = record.folders(tmp_path)
    assert set(found) == {good, bad}
    if damage == "deleted":
        shutil.rmtree(bad.path)
        assert bad.damage() == "The folder is gone."
    elif damage == "half-copied":
        assert "config.json is missing" in str(bad.damage())
    else:
        with pytest.raises(RunError, match="cannot be read"):
            Reader(bad).samples()
    assert Reader(good).steps() == [0, 1] and good.damage() is None


@contextmanager
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The query plans of everything the reader asks meanwhile."""
    real, found = schema.open_reader, []

    def watched(path: Path) -> sqlite3.Connection:
        db, other = real(path), real(path)

        def explain(statement: str) -> None:
            if (
                statement.lstrip().startswith("SELECT") and "'main'." not in statement
            ):  # the index asks in its own name
                steps = [row["detail"] for row in other.execute(f"EXPLAIN QUERY PLAN {statement}")]
                found.append(f"{' | '.join(steps)}   <-   {statement}")

        db.set_trace_callback(explain)
        return db

    with monkeypatch.context() as patch:
        patch.setattr(schema, "open_reader", watched)
        yield found


def test_case_37_a_run_of_100_000_samples_is_asked_by_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_fake_run(tmp_path, steps=12, groups=8, samples=8)
    with sqlite3.connect(folder.db_path) as db:
        # The same steps again and again: only the plans matter here, and they must hold at this size.
        last, samples = db.execute("SELECT max(id), (SELECT count(*) FROM samples) FROM steps").fetchone()
        keys = {"id": 10**7, "step_id": 10**7, "group_id": 10**7, "step": 100}
        for copy in range(1, 100_000 // samples + 1):
            for table, bound in (("steps", "id"), ("groups", "step_id"), ("samples", "step_id")):
                names = [row[0] for row in db.execute(f"SELECT name FROM pragma_table_info('{table}')")]
                shifted = ", ".join(
                    f"{name} + {copy * keys[name]}" if name in keys else name for name in names
                )
                db.execute(f"INSERT INTO {table} SELECT {shifted} FROM {table} WHERE {bound} <= ?", (last,))
        assert db.execute("SELECT count(*) FROM samples").fetchone()[0] > 99_000
    reader = Reader(folder)
    prompt = reader.group(3, 0)["prompt_id"]
    cursor = reader.series()["cursor"]
    with plans(monkeypatch) as found:
        reader.series(cursor - 3)
        reader.ribbon(cursor - 3)
        reader.groups(1103)
        reader.group(1103, 4, arrays=True)
        reader.prompt_history(prompt)
        reader.events(5)
        reader.search("check", Filters(reward_min=1.0), after_id=10**9, limit=20)
        reader.search(filters=Filters(prompt_id=prompt), limit=20)
    assert len(found) >= 15
    for plan in found:
        details, statement = plan.split("   <-   ")
        steps = details.split(" | ")
        # What is counted is capped: a scan of a subquery that ends at its LIMIT.
        capped = re.search(r"LIMIT \d+\)", statement) is not None
        small = (*SMALL, "SCAN (subquery") if capped else SMALL
        assert [step for step in steps if step.startswith("SCAN") and not step.startswith(small)] == [], plan
        assert not any("TEMP B-TREE FOR ORDER BY" in step for step in steps if "samples" in plan), plan
        assert capped or "count(" not in statement.lower(), plan


@pytest.mark.parametrize("place", ["file", "file/runs", "file/deep/runs"])
def test_case_38_a_runs_root_that_cannot_be_made_is_a_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunError, match=r"Runs cannot be kept in .*Choose another folder with --runs DIR"):
        record.create(tmp_path / place, fake_config())
    assert (tmp_path / "file").read_text() == "kept"


def test_case_38_a_runs_root_without_space_is_a_clear_error_and_leaves_no_half_made_run(
    tmp_path: Path,
) -> None:
    assert "could not be written" in limited("create", tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_case_39_a_checkpoint_is_on_the_disk_before_it_gets_its_name(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (done.append(("sync", Path(os.readlink(f"/proc/self/fd/{fd}")).name)), sync(fd)),
    )
    monkeypatch.setattr(
        os, "rename", lambda old, new: (done.append(("name", Path(new).name)), rename(old, new))
    )
    checkpoints.save(folder, 10, lambda place: (place / "model.safetensors").write_bytes(b"x"))
    named = done.index(("name", "step-000010"))
    assert {("sync", "model.safetensors"), ("sync", "manifest.json")} <= set(done[:named])
    pointed_at = next(i for i, (_, name) in enumerate(done) if name.startswith(".LATEST"))
    assert ("sync", "checkpoints") in done[named:pointed_at]


def test_case_39_kills_during_a_save_leave_the_checkpoint_before_it(
    folder: RunFolder, victims: Victims
) -> None:
    dice = random.Random(39)
    for _ in range(8):
        last = victims.kill_one("checkpoints", folder, after=dice.randint(1, 3))
        found = checkpoints.latest(folder)
        assert found is not None and last <= int(found.name[5:]) <= last + 1
        checkpoints.verify(found)
        assert [path.name for path in folder.checkpoints.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["missing", "truncated", "changed"])
def test_case_41_a_checkpoint_with_a_missing_or_changed_piece_is_refused_by_name(
    folder: RunFolder, name: str, how: str
) -> None:
    def write(place: Path) -> None:
        for piece in ("optimizer.safetensors", "state.json", "model.safetensors"):
            (place / piece).write_bytes(np.arange(100).tobytes())

    path = checkpoints.save(folder, 10, write)
    content = (path / name).read_bytes()
    if how == "missing":
        (path / name).unlink()
    else:
        (path / name).write_bytes(content[:-8] if how == "truncated" else content[:-1] + b"!")
    with pytest.raises(RunError, match=name):
        checkpoints.at(folder, 10)
    assert checkpoints.latest(folder) is None
