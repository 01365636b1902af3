"""The whole application, Gradio included, behind its guard; and the socket it stands on."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.fakes import write_fake_run
from workbench.core.errors import ConfigError
from workbench.view.__main__ import main
from workbench.view.server import app, serve

TOKEN = "a-token-of-this-start"
HOME = "http://127.0.0.1:7860"
KEY = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with TestClient(
        app.build(tmp_path_factory.mktemp("runs"), TOKEN), base_url=HOME, follow_redirects=False
    ) as client:
        yield client


def config(client: TestClient, page: str = "") -> dict[str, Any]:
    response = client.get("/config", headers=KEY, params={"page": page} if page else {})
    assert response.status_code == 200
    return dict(response.json())


GRADIO = [
    "/config",
    "/gradio_api/info",
    "/gradio_api/queue/join",
    "/gradio_api/run/predict",
    "/gradio_api/upload",
    "/gradio_api/call/check",
    "/gradio_api/component_server/",
    "/gradio_api/file=/etc/passwd",
    "/theme.css",
    "/wb/api/runs",
    "/wb/static/server/boot.js",
    "/",
]


@pytest.mark.parametrize("path", GRADIO)
def test_every_route_asks_for_the_token(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == client.post(path).status_code == 401


@pytest.mark.parametrize("path", [path for path in GRADIO if path != "/"])
def test_every_route_refuses_a_rebinding_host_and_a_foreign_page(client: TestClient, path: str) -> None:
    assert (
        client.post(
            path, headers={**KEY, "host": "evil.example:7860", "origin": "http://evil.example:7860"}
        ).status_code
        == 421
    )
    assert client.post(path, headers={**KEY, "origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "pyproject.toml",
        "https://evil.example/",
    ],
)
def test_no_file_of_the_machine_is_served(client: TestClient, name: str) -> None:
    for route in ("/gradio_api/file=", "/wb/static/", "/static/"):
        assert client.get(route + name, headers=KEY).status_code in (403, 404)


def test_what_runs_code_is_not_listed_as_an_api(client: TestClient) -> None:
    assert client.get("/gradio_api/info", headers=KEY).json() == {
        "named_endpoints": {},
        "unnamed_endpoints": {},
    }
    assert all(event["api_visibility"] == "private" for event in config(client)["dependencies"])


def test_a_first_visit_goes_to_new_run_and_later_ones_to_live(client: TestClient, tmp_path: Path) -> None:
    response = client.get("/?__theme=dark", headers=KEY)
    assert (response.status_code, response.headers["location"]) == (307, "/new?__theme=dark")
    write_fake_run(tmp_path, steps=1, groups=2, samples=2)
    with TestClient(app.build(tmp_path, None), base_url=HOME, follow_redirects=False) as later:
        assert later.get("/").status_code == 200


def test_the_pages_name_nothing_outside_this_machine(client: TestClient) -> None:
    page = client.get("/new", headers=KEY).text
    head = page[: page.index("</head>")]
    for tag in ("<script", "<link"):
        for piece in head.split(tag)[1:]:
            for name in ("src=", "href="):
                if name in piece.split(">")[0]:
                    address = piece.split(name)[1].split()[0].strip("\"'>")
                    assert not address.startswith(("http:", "https:", "//")) or address.startswith(HOME), (
                        address
                    )


def test_gradio_keeps_no_history_shows_no_footer_and_reports_to_no_server(client: TestClient) -> None:
    found = config(client)
    assert (
        not found.get("run_history")
        and found.get("footer_links") == []
        and not found.get("analytics_enabled")
    )


def test_static_files_are_asked_for_again_and_cost_nothing_when_they_are_the_same(client: TestClient) -> None:
    first = client.get("/wb/static/server/boot.js", headers=KEY)
    assert first.headers["cache-control"] == "no-cache" and "javascript" in first.headers["content-type"]
    again = client.get("/wb/static/server/boot.js", headers={**KEY, "if-none-match": first.headers["etag"]})
    assert again.status_code == 304


def test_a_share_link_cannot_be_asked_for(tmp_path: Path) -> None:
    code = (
        "import gradio.networking, gradio.tunneling, sys\n"
        "def never(*a, **k): sys.exit('a tunnel was asked for')\n"
        "gradio.networking.setup_tunnel = gradio.tunneling.Tunnel = never\n"
        "from starlette.testclient import TestClient\n"
        "from workbench.view.server import app\n"
        f"with TestClient(app.build({str(tmp_path)!r}, None), base_url={HOME!r}) as client:\n"
        "    assert not client.get('/config').json().get('is_share')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=_environment(GRADIO_SHARE="True"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **more}


def test_the_dashboard_never_loads_torch() -> None:
    code = "import sys, workbench.view.server.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr


# -- the socket ------------------------------------------------------------------------------------------


def test_it_listens_on_this_machine_only() -> None:
    listener = serve.listen("127.0.0.1", 0)
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()


def test_a_busy_port_that_was_asked_for_is_named_and_the_default_moves_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve.listen("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port = {port}.*another --port"):
            serve.listen("127.0.0.1", port)
        monkeypatch.setattr(serve, "DEFAULT_PORT", port)
        with serve.listen("127.0.0.1", None) as other:
            assert port < other.getsockname()[1] < port + serve.TRIES


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        serve.listen("127.0.0.1", port)


def test_all_ports_taken_is_said_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="Close what listens there"):
            serve.listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_the_network_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="needs the token"):
        serve.check_host(host, use_token=False)
    serve.check_host(host, use_token=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_may_go_without(host: str) -> None:
    serve.check_host(host, use_token=False)


def test_the_command_ends_with_2_and_the_sentence_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--runs", str(tmp_path), "--host", "0.0.0.0", "--no-token"]) == 2
    output = capsys.readouterr().err
    assert "needs the token" in output and "Traceback" not in output


def test_the_printed_address_carries_the_token_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output: list[str] = []
    monkeypatch.setattr(serve.uvicorn, "Server", lambda settings: _Stub(settings, output))
    serve.serve(tmp_path, port=0, token=TOKEN, announce=output.append)
    assert output[0].startswith("The workbench is at http://127.0.0.1:") and output[0].count(TOKEN) == 1
    assert output[1] == "access log False"


class _Stub:
    def __init__(self, settings: Any, output: list[str]) -> None:
        self.settings, self.output = settings, output

    def run(self, sockets: Any) -> None:
        self.output.append(f"access log {self.settings.access_log}")


def test_bad_json_is_a_refusal_and_not_a_crash(client: TestClient) -> None:
    response = client.post("/wb/api/runs", headers={**KEY, "content-type": "application/json"}, content="{")
    assert response.status_code == 422 and "Traceback" not in json.dumps(response.json())
