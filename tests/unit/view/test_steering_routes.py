"""What the page asks of a run and its alarms: settings checked before they are sent, alarms muted for good, forks filled in."""

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.fakes import write_fake_run
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RunError
from workbench.launch import preflight
from workbench.record.folder import RunFolder, create
from workbench.view.common import form
from workbench.view.common.run_store import RunStore
from workbench.view.new_run import starting_point
from workbench.view.server import routes


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_fake_run(tmp_path, steps=16, groups=4, samples=3, name="parent")  # step 14 raises an alarm


@pytest.fixture
def client(run: RunFolder) -> TestClient:
    app = FastAPI()
    app.include_router(routes.router(RunStore(run.root)), prefix="/wb/api")
    return TestClient(app, base_url="http://127.0.0.1")


def test_a_muted_alarm_stays_muted_until_it_is_unmuted(client: TestClient, run: RunFolder) -> None:
    def delta(since: str = "") -> dict:  # type: ignore[type-arg]
        return dict(client.get(f"/wb/api/runs/{run.id}/delta?since={since}").json())

    first = delta()
    [alarm] = first["alarms"]
    assert (alarm["muted"], alarm["label"], alarm["metric"]) == (False, "Entropy", "entropy")
    assert [sample["step"] for sample in alarm["samples"]] == [14] * 3 and alarm["figures"]["limit"] == 0.08
    for muted in (True, False):
        before = delta()["cursor"]
        assert delta(before)["alarms"] is None
        response = client.post(f"/wb/api/runs/{run.id}/mutes", json={"alarm": "entropy", "muted": muted})
        assert response.status_code == 200
        assert [one["muted"] for one in delta(before)["alarms"]] == [muted]  # the next poll shows it


def test_settings_are_checked_without_being_sent(client: TestClient, run: RunFolder) -> None:
    def check(args: dict) -> tuple[int, dict]:  # type: ignore[type-arg]
        response = client.post(
            f"/wb/api/runs/{run.id}/commands", json={"command": "set", "args": args, "check": True}
        )
        return response.status_code, response.json()["problems"]

    assert check({"beta": "0.1"}) == (200, {})
    status, problems = check({"beta": "-1", "temperature": "0"})
    assert (
        status == 400
        and set(problems) == {"beta", "temperature"}
        and "cannot be negative" in problems["beta"]
    )
    assert not run.control.exists() or not list(run.control.iterdir())


def test_a_link_fills_in_a_fork(run: RunFolder) -> None:
    store = RunStore(run.root)
    found = starting_point.from_link(store, {"fork": run.id, "step": "12", "set": json.dumps({"beta": 0.1})})
    assert found is not None
    assert (found.choice, found.title) == (
        f"fork:{run.id}:0",
        "Fork of parent from the base model",
    )  # it kept no checkpoint
    assert (found.config.beta, found.config.run_name, found.config.seed) == (0.1, None, run.config().seed)
    assert starting_point.from_link(store, {}) is None
    for query, words in (
        ({"fork": "../etc"}, "not a run id"),
        ({"fork": run.id, "step": "-1"}, "give the number"),
        ({"fork": run.id, "set": "[1]"}, "cannot be read"),
    ):
        with pytest.raises((RunError, ConfigError), match=words):
            starting_point.from_link(store, query)


def test_figures_that_read_the_same_in_the_form_are_no_change(tmp_path: Path) -> None:
    report = preflight.check(RunConfig.build(None, {"learning_rate": 0.000123456789}))
    folder = create(tmp_path, report.config, rewards=report.rewards, files=dict(report.files))
    base = starting_point.starting_point(RunStore(tmp_path), f"fork:{folder.id}:0")
    as_typed = base.config.changed(learning_rate=form.format_value(0.000123456789), beta="0.2")
    assert starting_point.changes(base, as_typed) == {"beta": 0.2}
