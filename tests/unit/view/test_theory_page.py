"""The theory page's route: nothing yet, a check in the background, kept figures, and figures of another version of the code."""

import json
import sys
from pathlib import Path

import pytest

from tests.helpers import wait_until
from workbench.diagnose import theory_check
from workbench.view.learn import theory
from workbench.view.learn.theory import TheoryCheck

QUICK = "import json, sys; from pathlib import Path; Path(sys.argv[1]).write_text(json.dumps({'stamp': %r, 'rows': [1]}))"


def command(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(theory, "COMMAND", (sys.executable, "-c", code))


def test_a_check_runs_in_the_background_and_its_figures_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(monkeypatch, QUICK % theory_check.stamp())
    check = TheoryCheck(tmp_path)
    check_status = check.status()
    assert check_status["state"] == "none" and {curve["panel"] for curve in check_status["curves"]} == set(
        theory_check.PANELS
    )
    assert not any(
        curve["reached"] for curve in check_status["curves"]
    )  # the lines alone, until they are checked
    assert check.start()["state"] in ("running", "done")
    wait_until(lambda: check.status()["state"] == "done", 30)
    assert TheoryCheck(tmp_path).status()["rows"] == [1]  # another process finds them too


def test_figures_of_other_code_are_check_status_apart(tmp_path: Path) -> None:
    check = TheoryCheck(tmp_path)
    check.path.parent.mkdir()
    check.path.write_text(json.dumps({"stamp": "of another day", "rows": [1]}))
    assert check.status()["state"] == "old"


def test_a_check_that_fails_says_so_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(monkeypatch, "raise SystemExit(1)")
    check = TheoryCheck(tmp_path)
    check.start()
    wait_until(lambda: check.status()["state"] == "failed", 30)
    assert "rows" not in check.status()


def test_every_point_of_the_pictures_lies_on_its_line() -> None:
    rows = [
        theory_check.Row("", 0.0, 0.0, 0.0, task.curve, beta)._replace(reached=task.closed_form(beta))
        for task in theory_check.tasks()
        for beta in task.betas[:1]
    ]
    curves = theory_check.curves(rows)
    assert {curve.panel for curve in curves} == set(theory_check.PANELS)
    for curve in curves:
        assert len(curve.beta) == len(curve.closed_form)
        assert all(0 <= p <= 1 for p in curve.closed_form)
        assert curve.name or curve.reached
