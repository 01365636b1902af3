"""Digests that are remembered are those of the files as they are now."""

import hashlib
import os
from pathlib import Path

import pytest

from workbench.train.checkpointing import fingerprint
from workbench.train.checkpointing.fingerprint import digests


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really read."""
    names: list[str] = []
    real = fingerprint.sha256

    def sha256(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(fingerprint, "sha256", sha256)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as untouched for long."""
    monkeypatch.setattr(fingerprint, "SETTLED_SECONDS", -1.0)


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once_and_again_when_it_was_touched(
    tmp_path: Path, read: list[str], settled: None
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 100)
    two.write_bytes(b"b" * 100)
    first = {one: content(one), two: content(two)}
    assert digests([one, two], tmp_path) == first and sorted(read) == ["one", "two"]
    assert digests([one, two], tmp_path) == first and len(read) == 2
    before = one.stat()
    one.write_bytes(b"a" * 50 + b"c" + b"a" * 49)
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))  # same name, size and time of modification
    assert digests([one, two], tmp_path) == {one: content(one), two: first[two]} and read[2:] == ["one"]


def test_a_file_that_is_still_being_written_is_not_remembered(tmp_path: Path, read: list[str]) -> None:
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"a")
    digests([fresh], tmp_path)
    digests([fresh], tmp_path)
    assert read == ["fresh", "fresh"]


@pytest.mark.parametrize("damage", ["", "[]", '{"x": '])
def test_a_torn_memory_only_costs_another_reading(
    tmp_path: Path, damage: str, read: list[str], settled: None
) -> None:
    one = tmp_path / "one"
    one.write_bytes(b"a")
    (tmp_path / ".workbench").mkdir()
    (tmp_path / ".workbench" / "sha256.json").write_text(damage)
    assert digests([one], tmp_path) == {one: content(one)}
    assert digests([one], tmp_path) == {one: content(one)} and read == ["one"]
