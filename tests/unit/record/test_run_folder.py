"""A run folder is complete or absent, found safely, and its small files are replaced atomically."""

import json
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from tests.fakes import fake_config
from workbench.core.errors import RunError
from workbench.record import files
from workbench.record import folder as record


def test_a_new_folder_has_a_speaking_id_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = record.create(
        tmp_path / "runs", fake_config(run_name="My first run!"), parent={"run": "a", "step": 3}
    )
    assert record.RUN_ID.fullmatch(folder.id) and "-my-first-run-" in folder.id
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.config_path.stat().st_mode) == 0o600
    about = folder.about()
    assert about["parent"] == {"run": "a", "step": 3} and about["kind"] == "train" and about["seed"] == 0
    assert about["versions"]["numpy"] and about["hardware"]["cpus"] == os.cpu_count()
    assert folder.config() == fake_config(run_name="My first run!")
    assert folder.damage() is None and folder.status() == {} and folder.error() == {}


def test_files_given_to_create_lie_in_the_folder_and_never_outside(tmp_path: Path) -> None:
    folder = record.create(
        tmp_path, fake_config(), files={"rewards/ab12.py": "def correct(): ...", "raw": b"\x00"}
    )
    assert (folder.rewards / "ab12.py").read_text() == "def correct(): ..." and (
        folder.path / "raw"
    ).read_bytes() == b"\x00"
    with pytest.raises(RunError, match="outside the run folder"):
        record.create(tmp_path, fake_config(), files={"../escaped": "x"})
    assert not (tmp_path / "escaped").exists()


def test_a_folder_that_could_not_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(path: Path, value: object, **options: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(record, "write_json", no_space)
    with pytest.raises(RunError, match=r"No space left on device.*free some disk space"):
        record.create(tmp_path, fake_config())
    assert list(tmp_path.iterdir()) == []


def test_a_half_made_folder_is_never_listed(tmp_path: Path) -> None:
    (tmp_path / ".new-abc").mkdir()
    (tmp_path / ".new-abc" / "config.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    made = record.create(tmp_path, fake_config())
    assert record.folders(tmp_path) == [made]
    assert record.folders(tmp_path / "nowhere") == []


def test_a_runs_root_below_a_regular_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"Runs cannot be kept in .*Not a directory.*--runs DIR"):
        record.create(tmp_path / "file" / "runs", fake_config())


def test_a_run_is_found_by_id_and_by_path(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    assert record.find(folder.id, tmp_path) == folder
    assert record.find(str(folder.path)) == folder
    assert record.find_id(folder.id, tmp_path) == folder


@pytest.mark.parametrize(
    "name", ["..", "../x", "%2e%2e", "a/b", ".hidden", "", "x" * 65, "a\0b", "/etc", "~"]
)
def test_an_id_from_the_network_cannot_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError):
        record.find_id(name, tmp_path)


def test_a_link_in_the_runs_root_that_leads_elsewhere_is_no_run(tmp_path: Path) -> None:
    outside = record.create(tmp_path / "other", fake_config())
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(outside.path)
    with pytest.raises(RunError):
        record.find_id("link", tmp_path / "runs")
    with pytest.raises(RunError):
        record.find("link", tmp_path / "runs")
    assert record.folders(tmp_path / "runs") == []


def test_an_error_about_an_unknown_run_names_those_there_are(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    with pytest.raises(RunError, match=f"No run 'nope' here.*{folder.id}"):
        record.find("nope", tmp_path)


def test_commands_come_out_once_in_the_order_they_went_in(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    sent = [folder.put("set", {"beta": i}) for i in range(5)]
    taken = folder.take()
    assert [command.id for command in taken] == sent
    assert [command.args["beta"] for command in taken] == [0, 1, 2, 3, 4]
    assert folder.take() == []


def test_a_file_in_the_inbox_that_is_no_command_is_reported_and_set_aside(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    (folder.control / "0-x.json").write_text("{not json")
    (folder.control / "0-y.json").write_text('["pause"]')
    (folder.control / ".3-z.json.tmp").write_text("")
    folder.put("pause")
    assert [command.command for command in folder.take()] == ["unreadable", "unreadable", "pause"]
    assert folder.take() == []
    assert len(list(folder.control.glob("unreadable-*"))) == 2


def test_folders_pipes_and_deep_values_in_the_inbox_hold_nothing_up(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    (folder.control / "0-a.json").mkdir()
    os.mkfifo(folder.control / "0-b.json")
    (folder.control / "0-c.json").write_text("[" * 100_000)
    (folder.control / "0-d.json").write_text('{"id": "x", "command": "set", "args": [3]}')
    folder.put("pause")
    taken = folder.take()
    assert [command.command for command in taken] == ["unreadable"] * 4 + ["pause"]
    assert "unreadable-" in taken[0].args["reason"] and "pipe" in taken[1].args["reason"]
    assert folder.take() == []


def test_fields_of_a_wrong_type_in_the_status_are_left_out(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    folder.status_path.write_text(
        '{"state": "running", "step": 1e999, "steps": 3, "pid": 1%s, "started": "x", "heartbeat": NaN, "reason": [1]}'
        % ("0" * 5000)
    )
    assert folder.status() == {"state": "running", "steps": 3, "pid": None}


def test_settings_of_a_wrong_type_are_damage_and_other_fields_are_emptied(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    folder.config_path.write_text('{"config": {}, "created": "x", "rewards": 3, "parent": 4, "kind": []}')
    assert folder.about() == {"config": {}, "created": 0.0, "rewards": [], "parent": None}
    folder.config_path.write_text('{"config": 3}')
    assert "no settings" in str(folder.damage())


def test_a_reader_of_status_sees_the_old_text_or_the_new_never_a_part(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    folder.write_status({"step": 0, "filler": "x" * 100_000})
    done = threading.Event()

    def write() -> None:
        for step in range(200):
            folder.write_status({"step": step, "filler": "x" * 100_000})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(len(folder.status()["filler"]))  # a torn file would raise RunError
    writer.join()
    assert seen == {100_000} and folder.status()["step"] == 199
    assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ("[1]", "holds a list"), ("{}", "holds no settings")]
)
def test_a_damaged_config_is_reported_as_damage(tmp_path: Path, text: str, message: str) -> None:
    folder = record.create(tmp_path, fake_config())
    folder.config_path.write_text(text)
    assert message in str(folder.damage())


def test_settings_of_another_version_are_a_clear_error(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    about = folder.about()
    about["config"]["invented_setting"] = 1
    folder.config_path.write_text(json.dumps(about))
    with pytest.raises(RunError, match="invented_setting"):
        folder.config()


def test_the_tail_of_a_log_is_its_last_lines_with_long_ones_cut(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(
        b"\n".join(b"line %d" % i for i in range(50_000)) + b"\n\xff" + b"y" * 20_000 + b"\nlast\n"
    )
    found = files.tail(log, 3)
    assert found[0] == "line 49999" and found[2] == "last"
    assert found[1].startswith("\N{REPLACEMENT CHARACTER}yyy") and found[1].endswith("(20001 characters)")
    assert len(found[1]) < 8300
    assert files.tail(tmp_path / "missing") == []


def test_a_log_is_rotated_in_place_so_that_an_open_file_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("ab", buffering=0) as stream:
        stream.write(b"a" * 100)
        assert not files.rotate(log, limit=100)
        stream.write(b"b")
        assert files.rotate(log, limit=100)
        stream.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "worker.log.1").read_bytes() == b"a" * 100 + b"b"


def test_json_that_is_no_json_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_what_must_survive_a_power_cut_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("sync"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("name"), replace(old, new)))
    files.write_json(tmp_path / "a.json", {})
    assert done == ["sync", "name", "sync"]  # the content, then the name, then the folder that holds the name
    done.clear()
    files.write_json(tmp_path / "a.json", {}, durable=False)
    assert done == ["name"]


def test_a_command_that_cannot_be_sent_is_an_error(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    folder.control.rmdir()
    folder.control.write_text("a file in the way")
    with pytest.raises(RunError, match="pause could not be sent"):
        folder.put("pause")
    shutil.rmtree(folder.path)
    with pytest.raises(RunError, match="not a run folder"):
        folder.put("pause")


def test_run_folders_that_no_address_can_carry_are_named(tmp_path: Path) -> None:
    for name in ("plain", "my run", "run (copy)", "l\u00e4ufe", "x" * 65, ".hidden one"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "no run at all").mkdir()
    assert [folder.id for folder in record.folders(tmp_path)] == ["plain"]
    assert record.left_out(tmp_path) == ["l\u00e4ufe", "my run", "run (copy)", "x" * 65]
    assert "'run (copy)'" in record.left_out_sentence(tmp_path) and "rename" in record.left_out_sentence(
        tmp_path
    )
    assert record.left_out_sentence(tmp_path / "nowhere") == ""


def test_a_log_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config())
    (tmp_path / "secret").write_text("canary")
    folder.log_path.symlink_to(tmp_path / "secret")
    assert folder.log_tail() == []
    folder.log_path.unlink()
    os.mkfifo(folder.log_path)
    assert folder.log_tail() == []
