"""The examination behind `workbench doctor --sandbox`."""

import json
from pathlib import Path

import pytest

from workbench.core.errors import SandboxError
from workbench.sandbox import doctor, programs


def test_the_suite_reports_what_was_contained_and_what_works() -> None:
    report = json.loads(json.dumps(doctor.run_suite()))
    assert report["contained"] == report["attacks"] == len(programs.load("attacks"))
    assert report["escaped"] == []
    assert report["tricks_failed"] == report["tricks"] == len(programs.load("tricks"))
    assert report["benign_ok"] == report["benign"] == 4
    assert report["median_ms"] > 0
    assert report["backend"] in ("guard", "bwrap")


def test_each_program_of_a_folder_is_run_as_a_job(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("print('é', len(input.__name__))")
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "bytes.py").write_bytes(b"print('\xff')")
    (tmp_path / "notes.txt").write_text("not a program")
    report = json.loads(json.dumps(doctor.run_programs(tmp_path)))
    assert set(report) == {"good.py", "bad.py", "bytes.py"}
    assert report["good.py"]["status"] == "ok"
    assert report["good.py"]["values"] == ["é 5\n"]
    assert report["good.py"]["stdout_tail"] == "é 5\n"
    assert report["good.py"]["maxrss"] > 1_000_000
    assert report["good.py"]["wall"] > 0
    assert report["bad.py"]["error"] == "ZeroDivisionError: division by zero (line 1: 1 / 0)"
    assert report["bytes.py"]["status"] == "error"


def test_a_folder_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"no programs in .*; expected is a folder with \*\.py files"):
        doctor.run_programs(tmp_path)
