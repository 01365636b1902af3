"""What reaches the dashboard from outside: foreign pages, rebinding names, paths that leave the runs, code, secrets, a second app.

The whole application answers, Gradio included. What a real browser does with it is in tests/ui.
"""

import json
import os
import pickle
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio.networking
import gradio.tunneling
import pytest
from starlette.testclient import TestClient

from tests.fakes import fake_config, make_step, write_fake_run
from tests.helpers import FAKE_WORKER, Yard, wait_until
from workbench import launch
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.core.estimate import EMBEDDED
from workbench.launch import local, preflight
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.wandb_sink import WandbSink
from workbench.record.writer import Writer
from workbench.view.reader import embed
from workbench.view.server import app, serve

TOKEN = "a-token-of-this-start"
HOME = "http://127.0.0.1:7860"
KEY = {"authorization": f"Bearer {TOKEN}"}
START = {"preset": "embedded", "settings": {"steps": 20_000, "device": "cpu"}, "key": "one form"}


class Served:
    """A dashboard over a runs root of its own, with workers that only count."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.http = TestClient(app.build(root, TOKEN, **options), base_url=HOME, follow_redirects=False)

    def get(self, path: str, **headers: str) -> Any:
        return self.http.get(path, headers={**KEY, **headers})

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.http.post(path, json=body, headers={**KEY, **headers})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A dashboard over one recorded run. Only to be read."""
    root = tmp_path_factory.mktemp("web") / "runs"
    write_fake_run(root, steps=2, groups=2, samples=3)
    (root.parent / "secret.txt").write_text("outside")
    return Served(root)


@pytest.fixture
def yard(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """Runs that the code under test starts are counting workers too."""
    monkeypatch.setattr(local, "WORKER", FAKE_WORKER)
    return yard


# -- a page that comes and goes ----------------------------------------------------------------------------


def test_case_23_a_browser_that_is_closed_in_the_middle_changes_nothing_and_the_next_sees_the_present(
    yard: Yard,
) -> None:
    folder = yard.start(step_seconds=0.02)
    yard.goes_on(folder)
    listener = serve.listen("127.0.0.1", 0)
    served = serve.uvicorn.Server(
        serve.uvicorn.Config(app.build(yard.root, TOKEN), log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: served.started)
    for _ in range(3):  # asks, and is gone before the answer
        with socket.create_connection(listener.getsockname()) as page:
            page.sendall(
                f"GET /wb/api/runs/{folder.id}/delta HTTP/1.1\r\nhost: 127.0.0.1:{listener.getsockname()[1]}\r\n"
                f"authorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
    served.should_exit = True
    thread.join(10)
    yard.goes_on(folder, 3)
    after = launch.state(folder).step
    told = Served(yard.root).get(f"/wb/api/runs/{folder.id}/delta").json()
    assert told["status"]["step"] >= after and told["status"]["state"] == "running"


# -- text --------------------------------------------------------------------------------------------------

HOSTILE = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "${alert(1)} {{7*7}}", "</textarea><svg onload=alert(1)>",
    "[a](javascript:alert(1))", "\x1b[31mred\x1b[0m", "abc\u202etxt.exe", "שלום עולם", "مرحبا", "👩‍👩‍👧 \U0001f600", "a\0b", "x" * 10**6, "\ud800 lone",
]  # fmt: skip


def test_case_49_whatever_a_model_writes_travels_as_json_and_is_no_markup_on_the_way(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=1, samples=len(HOSTILE)))
    step = make_step(0, groups=1, samples=len(HOSTILE))
    [group] = step.groups
    rollouts = tuple(
        replace(rollout, text=text) for rollout, text in zip(group.rollouts, HOSTILE, strict=True)
    )
    step.groups = [replace(group, rollouts=rollouts)]
    with Writer(folder) as writer:
        writer.step(step)
    answer = Served(tmp_path).get(f"/wb/api/runs/{folder.id}/steps/0/groups/0")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    said = {sample["text"] for sample in answer.json()["samples"]}
    assert set(HOSTILE[:-1]) <= said and "\ufffd lone" in said
    # In a page that carries its data within itself nothing can end the script that holds it.
    page = embed.group_page(folder, 0, 0)
    assert (
        "alert(1)" in page
        and "<script>alert" not in page
        and "<img src=x" not in page
        and "<svg onload" not in page
    )


# -- who may ask -------------------------------------------------------------------------------------------


FOREIGN = [
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://127.0.0.1:9999"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"host": "evil.example:7860", "origin": "http://evil.example:7860"}, 421),
    ({"host": "127.0.0.1.evil.example"}, 421),
]


def test_case_50_a_foreign_page_or_name_is_refused_and_nothing_runs(yard: Yard) -> None:
    folder = yard.start()
    yard.goes_on(folder)
    web = Served(yard.root)
    for headers, status in FOREIGN:
        for path, body in (
            ("/wb/api/runs", START),
            (f"/wb/api/runs/{folder.id}/commands", {"command": "stop"}),
            ("/gradio_api/queue/join", {"data": [], "fn_index": 0, "session_hash": "x"}),
            ("/gradio_api/upload", None),
        ):
            assert web.post(path, body, **headers).status_code == status
    yard.goes_on(folder)
    assert record.folders(yard.root) == [folder] and not launch.state(folder).over
    own = web.post(f"/wb/api/runs/{folder.id}/commands", {"command": "pause"}, origin=HOME)
    assert own.status_code == 202


def test_case_50_without_the_token_nobody_gets_in(shared: Served) -> None:
    for path in ("/", "/wb/api/runs", "/config", "/gradio_api/info", "/wb/static/server/boot.js"):
        assert shared.http.get(path).status_code == 401
    entrance = shared.http.get(f"/?token={TOKEN}")
    cookie = entrance.headers["set-cookie"]
    assert entrance.status_code == 303 and TOKEN not in entrance.headers["location"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    shared.http.cookies.clear()


# -- paths -------------------------------------------------------------------------------------------------

OUTSIDE = [
    "..", "../secret.txt", "%2e%2e", "%2e%2e%2fsecret.txt", "..%5csecret.txt", "/etc/passwd", "%2fetc%2fpasswd", "a%00b", ".workbench", "....//",
    "x" * 65, "linked",
]  # fmt: skip


@pytest.mark.parametrize("run", OUTSIDE)
def test_case_51_no_route_leaves_the_runs(shared: Served, run: str) -> None:
    if not (shared.root / "linked").exists():
        (shared.root.parent / "elsewhere").mkdir()
        write_fake_run(shared.root.parent / "elsewhere", steps=1, groups=1, samples=2).path.rename(
            shared.root.parent / "other"
        )
        (shared.root / "linked").symlink_to(shared.root.parent / "other")
    for route in ("", "/delta", "/log", "/steps/0", "/steps/0/groups/0"):
        answer = shared.get(f"/wb/api/runs/{run}{route}")
        assert (
            answer.status_code in (400, 404, 405)
            and "root:" not in answer.text
            and "outside" not in answer.text
        )
    for route in ("/gradio_api/file=", "/wb/static/", "/wb/static/../", "/static/", "/assets/"):
        answer = shared.get(route + run)
        # The client resolves a bare `..` by itself: what it then asks for is a page of ours.
        assert answer.status_code in (403, 404) or run == ".."
        assert "outside" not in answer.text and "root:" not in answer.text
    assert [folder.id for folder in record.folders(shared.root)] == [
        run["id"] for run in shared.get("/wb/api/runs").json()["runs"]
    ]


# -- code --------------------------------------------------------------------------------------------------


def test_case_52_neither_pickles_nor_code_of_a_model_are_run(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    model = tmp_path / "model"
    shutil.copytree(EMBEDDED, model)
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Touch()))
    config = RunConfig.build("embedded", {"model": str(model)})
    assert "can run any code" in preflight.check(config).problems["model"]
    shutil.copy(EMBEDDED / "model.safetensors", model)
    (model / "pytorch_model.bin").unlink()
    (model / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    about = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**about, "model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}})
    )
    said = preflight.check(config).problems
    assert said.get("model", "") != "" or not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError):
        RunConfig.build("embedded", {"trust_remote_code": True})
    assert not (tmp_path / "ran").exists()


# -- secrets -----------------------------------------------------------------------------------------------

CANARIES = {
    "HF_TOKEN": "hf_CanaryCanaryCanaryCanary0001",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "OPENAI_API_KEY": "sk-canary-canary-canary-canary-0002",
    "AWS_SECRET_ACCESS_KEY": "plain-looking-canary-of-no-known-form",
}


def test_case_53_no_secret_of_the_environment_is_left_anywhere(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    everything = " ".join(f"{name}={value}" for name, value in CANARIES.items())
    folder = yard.start(steps=3, raise_at=2, message=everything)
    yard.reaches(folder, "failed")
    with Writer(folder) as writer, WandbSink(folder, folder.config().changed(wandb="offline")) as sink:
        step = make_step(5, groups=1, samples=2)
        writer.step(step)
        sink.log(step)
    web = Served(yard.root)
    shown = "".join(
        web.get(f"/wb/api/runs{path}").text
        for path in ("", f"/{folder.id}", f"/{folder.id}/delta", f"/{folder.id}/log")
    )
    assert "[redacted]" in folder.log_path.read_text() and "[redacted]" in shown
    (folder.path / "fake.json").unlink()  # where the test itself has put them
    kept = [path for path in folder.path.rglob("*") if path.is_file()]
    assert any("wandb" in path.parts for path in kept)
    for value in CANARIES.values():
        assert value not in shown
        assert [path.name for path in kept if value.encode() in path.read_bytes()] == []
    for path in [folder.path, *folder.path.rglob("*")]:
        if "wandb" not in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path


# -- the open network, a second app ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2"])
def test_case_54_the_network_needs_the_token_and_no_tunnel_is_ever_asked_for(
    shared: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with pytest.raises(ConfigError, match="needs the token"):
        serve.serve(tmp_path, host=host, use_token=False)

    def never(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("a tunnel was asked for")

    monkeypatch.setattr(gradio.networking, "setup_tunnel", never)
    monkeypatch.setattr(gradio.tunneling, "Tunnel", never)
    monkeypatch.setenv("GRADIO_SHARE", "True")
    assert not Served(tmp_path).get("/config").json().get("is_share")


def test_case_55_a_busy_port_is_named_and_the_default_one_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve.listen("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port = {port} .*another --port"):
            serve.listen("127.0.0.1", port)
        monkeypatch.setattr(serve, "DEFAULT_PORT", port)
        with serve.listen("127.0.0.1", None) as other:
            assert port < other.getsockname()[1] < port + serve.TRIES


def test_case_55_two_apps_on_one_runs_folder_show_the_same_and_start_one_run(yard: Yard) -> None:
    yard.root.mkdir()
    first, second = Served(yard.root), Served(yard.root)
    told = [web.post("/wb/api/runs", START) for web in (first, second, first)]
    assert [answer.status_code for answer in told] == [201] * 3
    [run] = {answer.json()["id"] for answer in told}
    assert [one["id"] for web in (first, second) for one in web.get("/wb/api/runs").json()["runs"]] == [
        run,
        run,
    ]
    yard.goes_on(RunFolder(yard.root / run))
    watching = Served(yard.root, read_only=True)
    assert watching.get(f"/wb/api/runs/{run}/delta").status_code == 200
    for path, body in (
        ("/wb/api/runs", START),
        (f"/wb/api/runs/{run}/commands", {"command": "stop"}),
        ("/gradio_api/queue/join", {}),
    ):
        refused = watching.post(path, body)
        assert refused.status_code == 403 and "read-only" in refused.json()["error"]
    assert watching.get("/new").status_code == 404
    assert watching.get("/config").json()["dependencies"] == []
    yard.goes_on(RunFolder(yard.root / run))
