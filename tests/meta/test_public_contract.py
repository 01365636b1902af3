"""What scripts, notebooks and links rely on is still there: HTTP routes, commands with their options, keys of JSON, names of the package.

`tests/data/public_contract.json` is the committed list. Names may be added to it; taking one away breaks somebody's script.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import workbench
from tests.fakes import write_fake_run
from workbench import cli
from workbench.core.config import settings
from workbench.core.glossary import ALARMS, METRICS
from workbench.launch.follow import summary
from workbench.record.folder import RunFolder
from workbench.view.common.run_store import RunStore
from workbench.view.server import routes

CONTRACT = json.loads((Path(__file__).parents[1] / "data" / "public_contract.json").read_text())
REQUESTS = {
    "runs": "runs",
    "header": "runs/{run}",
    "delta": "runs/{run}/delta",
    "step": "runs/{run}/steps/latest",
    "evaluated step": "runs/{run}/steps/0?kind=eval&mode=sampled",
    "group": "runs/{run}/steps/2/groups/0?tokens=true",
    "prompt": "runs/{run}/prompts/{prompt}",
    "reward": "runs/{run}/rewards/correct",
    "log": "runs/{run}/log",
    "search": "runs/{run}/search?words=answer",
    "search choices": "runs/{run}/search/choices",
    "what if": "runs/{run}/whatif?set=beta=0.1",
    "what if, tokens": "runs/{run}/whatif/tokens?set=epsilon=0.1",
    "ask choices": "runs/{run}/ask/choices",
    "branches": "runs/{run}/steps/2/groups/0/branches",
    "waiting": "runs/{run}/waiting",
    "compare": "compare?run={run}&run={other}",
    "compare prompt": "compare/{prompt}?run={run}&run={other}",
    "theory": "theory",
    "glossary": "glossary",
    "lab": "lab",
}
COMMANDS = {
    "settings": ["settings"],
    "list": ["list", "--runs", "{root}"],
    "show": ["show", "{run}", "--runs", "{root}"],
    "show step": ["show", "{run}", "--step", "2", "--runs", "{root}"],
    "show group": ["show", "{run}", "--step", "2", "--group", "0", "--runs", "{root}"],
    "search": ["search", "{run}", "--words", "answer", "--runs", "{root}"],
}

TABLES = {
    "config",
    "panels",
    "changed",
    "versions",
    "hardware",
    "metrics",
    "metric_parts",
    "settings",
    "alarms",
    "columns",
    "args",
    "fork",
}
"""Keys whose values are keyed by names of settings, metrics, packages or data."""


def keys(value: Any, at: str = "") -> Iterator[str]:
    """Every key of a JSON value with the path to it; the items of a list share the path `[]`, those of a table of names `*`."""
    if isinstance(value, dict):
        table = at.rpartition(".")[2] in TABLES
        for key, inner in value.items():
            path = f"{at}.*" if table else f"{at}.{key}"
            yield path.lstrip(".")
            yield from keys(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{at}[]")


def options(command: str) -> list[str]:
    """The names that a command's options can be given by."""
    return sorted({name for one in cli.app[command].assemble_argument_collection() for name in one.names})


def route_list(api: FastAPI) -> list[str]:
    """`METHOD /path` of each JSON route."""
    return sorted(
        f"{method.upper()} {path}" for path, found in api.openapi()["paths"].items() for method in found
    )


def lost(kind: str, name: str, found: Any) -> list[str]:
    """What the contract lists and `found` lacks."""
    return sorted(set(CONTRACT[kind][name] if name else CONTRACT[kind]) - set(found))


def recorded(root: Path) -> RunFolder:
    """The newer one of two runs with the same prompts; step 14 raises an alarm."""
    write_fake_run(root, steps=6, groups=4, samples=3, eval_steps=5, name="other")
    return write_fake_run(root, steps=16, groups=4, samples=3, eval_steps=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return recorded(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def api(run: RunFolder) -> FastAPI:
    app = FastAPI()
    app.include_router(routes.router(RunStore(run.root)), prefix="/wb/api")
    return app


def response(api: FastAPI, run: RunFolder, name: str) -> Any:
    with TestClient(api, base_url="http://127.0.0.1") as client:
        group = client.get(f"/wb/api/runs/{run.id}/steps/2/groups/0").json()
        other = next(one["id"] for one in client.get("/wb/api/runs").json()["runs"] if one["id"] != run.id)
        path = REQUESTS[name].format(run=run.id, other=other, prompt=group["prompt_id"])
        found = client.get(f"/wb/api/{path}")
        assert found.status_code == 200, found.text
        return found.json()


def output(run: RunFolder, name: str, capfd: pytest.CaptureFixture[str]) -> Any:
    assert cli.main([word.format(run=run.id, root=run.root) for word in [*COMMANDS[name], "--json"]]) == 0
    return json.loads(capfd.readouterr().out.strip().splitlines()[-1])


def test_no_http_route_is_lost(api: FastAPI) -> None:
    assert lost("routes", "", route_list(api)) == []


@pytest.mark.parametrize("command", CONTRACT["options"])
def test_no_command_and_no_option_is_lost(command: str) -> None:
    assert lost("options", command, options(command)) == []


@pytest.mark.parametrize("name", REQUESTS)
def test_no_key_of_a_response_is_lost(name: str, api: FastAPI, run: RunFolder) -> None:
    assert lost("responses", name, keys(response(api, run, name))) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_no_key_of_a_command_s_json_is_lost(
    name: str, run: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lost("outputs", name, keys(output(run, name, capfd))) == []


def test_no_key_of_a_run_s_summary_is_lost(run: RunFolder) -> None:
    assert lost("summary", "", summary(run)) == []


def test_no_setting_metric_alarm_or_name_of_the_package_is_lost() -> None:
    assert lost("settings", "", [info.name for info in settings()]) == []
    assert lost("metrics", "", METRICS) == []
    assert lost("alarms", "", ALARMS) == []
    assert lost("package", "", dir(workbench)) == []
    assert lost("run", "", dir(workbench.Run)) == []
