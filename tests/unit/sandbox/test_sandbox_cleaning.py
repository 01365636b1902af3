"""Removing what a program has filled."""

import os
from pathlib import Path

from workbench.sandbox.inside import cleaning


def test_a_folder_too_deep_for_any_path_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "work"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    cleaning.remove(str(top))
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("kept")
    top = tmp_path / "work"
    (top / "inner").mkdir(parents=True)
    for place in (top, top / "inner"):
        (place / "folder").symlink_to(keep)
        (place / "file").symlink_to(keep / "file")
    cleaning.remove(str(top))
    assert not top.exists()
    assert (keep / "file").read_text() == "kept"


def test_odd_names_and_shut_folders_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "work"
    inner = top / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (top / ".moved-1").write_text("in the way")
    (top / ".moved-2").mkdir()
    (top / ".moved-2" / "full").mkdir()
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b" "):
        (Path(os.fsdecode(os.path.join(os.fsencode(inner), name)))).write_bytes(b"x")
    for folder in (inner, inner.parent, inner.parent.parent):
        folder.chmod(0)
    cleaning.remove(str(top))
    assert not top.exists()


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    cleaning.remove(str(tmp_path / "nothing"))
