"""A checkpoint is complete or absent: damaged ones are passed over, failed saves leave the earlier ones untouched."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.fakes import fake_config, make_step
from workbench.core.errors import RunError
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.writer import Writer


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path, fake_config())


def weights(value: float) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        save_file({"w": np.full(8, value, np.float32)}, place / "model.safetensors")
        (place / "optimizer").mkdir()
        save_file({"m": np.zeros(2, np.float32)}, place / "optimizer" / "state.safetensors")

    return write


def steps(folder: RunFolder) -> list[int]:
    return [found.step for found in checkpoints.listing(folder)]


def test_a_checkpoint_lists_every_file_with_its_hash(folder: RunFolder) -> None:
    path = checkpoints.save(folder, 10, weights(1.0), {"cursor": 160})
    assert path.name == "step-000010" and (folder.checkpoints / "LATEST").read_text() == "step-000010\n"
    manifest = checkpoints.read_manifest(path)
    assert set(manifest["files"]) == {"model.safetensors", "optimizer/state.safetensors"}
    assert (
        manifest["step"] == 10 and manifest["meta"] == {"cursor": 160} and manifest["versions"]["safetensors"]
    )
    assert manifest["files"]["model.safetensors"]["size"] == (path / "model.safetensors").stat().st_size
    assert checkpoints.latest(folder) == path == checkpoints.at(folder, 10)
    assert load_file(path / "model.safetensors")["w"].tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
        (
            lambda path: (path / "optimizer" / "state.safetensors").write_bytes(b""),
            "optimizer/state.safetensors has 0 bytes",
        ),
        (lambda path: flip(path / "model.safetensors"), "model.safetensors was changed"),
    ],
)
def test_a_torn_checkpoint_is_named_and_walked_past(
    folder: RunFolder, damage: Callable[[Path], object], message: str
) -> None:
    good = checkpoints.save(folder, 10, weights(1.0))
    torn = checkpoints.save(folder, 20, weights(2.0))
    damage(torn)
    assert checkpoints.latest(folder) == good
    with pytest.raises(RunError, match=message):
        checkpoints.at(folder, 20)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_without_a_good_checkpoint_there_is_none(folder: RunFolder) -> None:
    assert checkpoints.latest(folder) is None
    (folder.checkpoints / "step-000010").mkdir()
    assert checkpoints.latest(folder) is None
    with pytest.raises(RunError, match=r"no checkpoint after step 30\. Kept: none"):
        checkpoints.at(folder, 30)


def test_a_save_that_fails_leaves_the_earlier_ones_and_no_rest(folder: RunFolder) -> None:
    checkpoints.save(folder, 10, weights(1.0))

    def runs_out(place: Path) -> None:
        weights(2.0)(place)
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"after step 20 could not be written \(No space left on device\)"):
        checkpoints.save(folder, 20, runs_out)
    assert steps(folder) == [10] and checkpoints.latest(folder) == folder.checkpoints / "step-000010"
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["LATEST", "step-000010"]


def test_what_a_killed_save_left_is_cleared_away(folder: RunFolder) -> None:
    kept = checkpoints.save(folder, 10, weights(1.0))
    (folder.checkpoints / ".new-000020-abcd").mkdir()
    weights(2.0)(folder.checkpoints / ".new-000020-abcd")
    assert checkpoints.latest(folder) == kept
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["LATEST", "step-000010"]


def test_a_checkpoint_killed_while_making_way_is_put_back(folder: RunFolder) -> None:
    path = checkpoints.save(folder, 10, weights(1.0))
    path.rename(folder.checkpoints / ".old-step-000010")
    assert checkpoints.latest(folder) == path


def test_the_same_step_again_replaces_the_checkpoint(folder: RunFolder) -> None:
    checkpoints.save(folder, 10, weights(1.0))
    path = checkpoints.save(folder, 10, weights(2.0))
    assert load_file(path / "model.safetensors")["w"][0] == 2.0 and steps(folder) == [10]


def test_the_newest_the_best_and_the_pinned_ones_stay(folder: RunFolder) -> None:
    accuracy = {0: 0.1, 10: 0.9, 20: 0.3, 30: 0.9, 40: 0.5, 50: 0.4, 60: 0.2}
    with Writer(folder) as writer:
        for step, value in accuracy.items():
            check = make_step(step, groups=1, samples=2, kind="eval", mode="sampled")
            check.metrics = {"heldout/sampled/accuracy": value}
            writer.step(check)
            writer.flush()
            checkpoints.save(folder, step, weights(step), keep=2)
            if step == 20:
                checkpoints.pin(folder, 20)
    # 30 is as good as 10 and newer; without a pin 20 would be gone.
    assert steps(folder) == [20, 30, 50, 60] and checkpoints.pinned(folder) == {20}
    checkpoints.pin(folder, 20, keep=False)
    checkpoints.save(folder, 70, weights(70), keep=2)
    assert steps(folder) == [30, 60, 70]
    with pytest.raises(RunError, match=r"There is no checkpoint after step 20\. Kept: 30, 60, 70"):
        checkpoints.pin(folder, 20)


def test_nothing_but_safetensors_and_json_is_written_by_this_module(folder: RunFolder) -> None:
    path = checkpoints.save(folder, 10, weights(1.0))
    assert {file.suffix for file in path.rglob("*") if file.is_file()} == {".safetensors", ".json"}
    json.loads((path / "manifest.json").read_text())


def test_every_file_is_synced_before_the_checkpoint_gets_its_name(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    named: list[int] = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
    monkeypatch.setattr(os, "rename", lambda old, new: (named.append(len(synced)), rename(old, new)))
    checkpoints.save(folder, 10, weights(1.0))
    before = {Path(path).name for path in synced[: named[-1]]}
    assert {"model.safetensors", "state.safetensors", "manifest.json", "optimizer"} <= before
    assert str(folder.checkpoints) in synced[named[-1] :]


def final_model(place: Path) -> None:
    (place / "config.json").write_text("{}")
    save_file({"w": np.ones(8, np.float32)}, place / "model.safetensors")


def test_a_final_model_is_complete_or_absent(folder: RunFolder) -> None:
    def torn(place: Path) -> None:
        final_model(place)
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"The final model could not be written \(No space left on device\)"):
        checkpoints.save_final(folder, 12, torn)
    assert not folder.final.exists() and not list(folder.path.glob(".new-*"))
    assert checkpoints.final_problem(folder) == "there is none, the run did not finish."
    checkpoints.save_final(folder, 12, final_model)
    assert checkpoints.final_problem(folder) == ""
    assert json.loads((folder.final / "manifest.json").read_text())["step"] == 12
    (folder.final / "model.safetensors").write_bytes(b"half")
    assert checkpoints.final_problem(folder) == "model.safetensors has 4 bytes instead of 96."


def test_a_final_model_of_an_earlier_version_counts_only_where_the_run_finished(folder: RunFolder) -> None:
    folder.final.mkdir()
    (folder.final / "config.json").write_text("{}")
    assert checkpoints.final_problem(folder) == "manifest.json is missing, so it was never finished."
    folder.write_status({"state": "finished"})
    assert checkpoints.final_problem(folder) == ""
