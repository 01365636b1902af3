"""The guard alone, in front of an application that only counts who came through."""

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from workbench.view.server.guard import Guard

HOME = "http://127.0.0.1:7860"
TOKEN = "a-token-of-this-start"
PAGE = {"accept": "text/html"}


class Inside:
    """What lies behind the guard."""

    def __init__(self, **options: Any) -> None:
        self.came: list[str] = []
        app = Starlette(
            routes=[
                Route("/{path:path}", self.respond, methods=["GET", "POST"]),
                WebSocketRoute("/ws", self.socket),
            ]
        )
        self.guard = Guard(app, **{"token": None, **options})

    async def respond(self, request: Request) -> PlainTextResponse:
        self.came.append(
            f"{request.method} {request.url.path}?{request.url.query} {len(await request.body())}"
        )
        return PlainTextResponse("in", headers={"Access-Control-Allow-Origin": "https://evil.example"})

    async def socket(self, socket: WebSocket) -> None:
        self.came.append("socket")
        await socket.accept()
        await socket.close()

    def client(self, base: str = HOME, **options: Any) -> TestClient:
        return TestClient(self.guard, base_url=base, **options)


@pytest.mark.parametrize("base", [HOME, "http://localhost:7860", "http://[::1]:7860", "http://LOCALHOST"])
def test_this_machine_is_let_in_under_its_own_names(base: str) -> None:
    assert Inside().client(base).get("/").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "",
        "[::2]:7860",
        "127.0.0.1@evil.example",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_rebinding_host_is_refused_and_nothing_runs(host: str, method: str) -> None:
    inside = Inside()
    response = inside.client().request(method, "/gradio_api/call/launch", headers={"host": host})
    assert response.status_code == 421 and "--allow-host" in response.json()["error"]
    assert inside.came == []


def test_another_name_is_let_in_once_it_is_allowed() -> None:
    inside = Inside(hosts=["Workbench.Lab"])
    assert inside.client("http://workbench.lab:80").get("/").status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://localhost:7860",
        "file://",
        "http://127.0.0.1:7860.evil.example",
    ],
)
def test_a_post_from_a_foreign_page_is_refused_and_nothing_runs(origin: str) -> None:
    inside = Inside()
    response = inside.client().post("/gradio_api/upload", headers={"origin": origin}, content="x")
    assert response.status_code == 403 and "Nothing was done" in response.json()["error"]
    assert inside.came == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_the_browser_says_about_the_sender_counts_too(site: str) -> None:
    inside = Inside()
    client = inside.client()
    assert client.post("/", headers={"sec-fetch-site": site}).status_code == 403
    # An image or a script of another site's page; a link to us is fine.
    assert client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 200
    assert len(inside.came) == 1


def test_the_dashboards_own_page_may_post() -> None:
    response = Inside().client().post("/", headers={"origin": HOME, "sec-fetch-site": "same-origin"})
    assert response.status_code == 200


def test_a_websocket_from_a_foreign_page_is_closed_before_it_opens() -> None:
    inside = Inside()
    with (
        pytest.raises(WebSocketDisconnect),
        inside.client().websocket_connect("/ws", headers={"origin": "https://evil.example"}),
    ):
        pass
    assert inside.came == []


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address() -> None:
    inside = Inside(token=TOKEN)
    client = inside.client(follow_redirects=False)
    response = client.get(f"/runs?run=a%20b&token={TOKEN}")
    assert (response.status_code, response.headers["location"]) == (303, "/runs?run=a+b")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert inside.came == []  # what lies behind never saw the token
    assert client.get(response.headers["location"]).status_code == 200
    assert TOKEN not in inside.came[0]


def test_the_redirect_stays_on_this_machine() -> None:
    client = Inside(token=TOKEN).client(follow_redirects=False)
    for path in ("//evil.example/", "/%5Cevil.example", "///evil.example"):
        location = client.get(f"{HOME}{path}?token={TOKEN}").headers["location"]
        assert location.startswith("/") and not location.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": "workbench-00000000=x"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
    ],
)
def test_without_the_token_every_request_is_refused(headers: dict[str, str]) -> None:
    inside = Inside(token=TOKEN)
    response = inside.client().get("/config", headers=headers)
    assert response.status_code == 401 and inside.came == []
    assert "Open the address that it printed" in response.json()["error"]


def test_a_person_without_the_token_reads_a_sentence_and_a_script_reads_json() -> None:
    client = Inside(token=TOKEN).client()
    page = client.get("/", headers=PAGE)
    assert (
        page.headers["content-type"].startswith("text/html") and "<p>This dashboard can run code" in page.text
    )
    assert set(json.loads(client.get("/").text)) == {"error", "problems"}


def test_the_web_manifest_is_empty_for_whoever_asks_and_opens_nothing_else() -> None:
    """Browsers fetch it without cookies; a 401 would stand as an error in the console of the owner."""
    inside = Inside(token=TOKEN)
    response = inside.client().get("/manifest.json")
    assert response.status_code == 200 and response.json() == {} and inside.came == []
    assert response.headers["content-type"] == "application/manifest+json"
    assert inside.client().get("/manifest.json/../wb/api/runs").status_code == 401
    assert inside.client("http://evil.example").get("/manifest.json").status_code == 421


def test_an_old_link_says_that_it_is_old() -> None:
    response = Inside(token=TOKEN).client().get("/?token=of-an-earlier-start")
    assert response.status_code == 401 and "earlier start" in response.json()["error"]


def test_scripts_send_the_token_as_a_bearer() -> None:
    assert (
        Inside(token=TOKEN).client().post("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code
        == 200
    )


def test_a_stolen_cookie_name_reveals_nothing_of_the_token_and_two_dashboards_keep_apart() -> None:
    first, second = Inside(token="one").guard, Inside(token="two").guard
    assert first.cookie != second.cookie and "one" not in first.cookie


def test_every_response_carries_the_security_headers() -> None:
    inside = Inside(token=TOKEN)
    client = inside.client()
    for response in (
        client.get("/", headers={"authorization": f"Bearer {TOKEN}"}),
        client.get("/"),
        client.get("/", headers={"host": "evil.example"}),
    ):
        policy = response.headers["content-security-policy"]
        for part in (
            "connect-src 'self'",
            "img-src 'self' data: blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "frame-ancestors 'none'",
        ):
            assert part in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers


def test_a_body_that_is_too_large_is_refused_by_its_length() -> None:
    inside = Inside(body_limit=100)
    response = inside.client().post("/", content=b"x" * 101)
    assert response.status_code == 413 and inside.came == []
    assert inside.client().post("/", content=b"x" * 100).status_code == 200
    assert inside.client().post("/", headers={"content-length": "-5"}, content=b"").status_code == 413


def test_a_body_without_a_length_ends_where_the_limit_is() -> None:
    seen: list[dict[str, Any]] = []

    async def read(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen.append(message)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        await PlainTextResponse("read")(scope, receive, send)

    def chunks() -> Any:
        for _ in range(10):
            yield b"x" * 30

    TestClient(Guard(read, token=None, body_limit=100), base_url=HOME).post("/", content=chunks())
    assert seen[-1]["type"] == "http.disconnect"
    assert sum(len(message.get("body", b"")) for message in seen) <= 100


@pytest.mark.parametrize(
    "host", ["[::1].evil.com", "[::1]evil.com:80", "localhost:80:90", "localhost:x", "[::1", "a@localhost"]
)
def test_a_host_header_is_one_name_and_at_most_one_port(host: str) -> None:
    assert Inside().client().get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "", "http://[::1]evil"])
def test_an_origin_that_is_no_address_is_refused(origin: str) -> None:
    assert Inside().client().post("/", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        '{"a": NaN}',
        '{"a": [-1e999]}',
        '{"a": 9223372036854775808}',
        '["\\ud800"]',
        '{"\\u0000": 1}',
        "[" * 100_000,
    ],
)
def test_values_that_nothing_can_keep_are_refused_before_any_route(body: str) -> None:
    inside = Inside()
    response = inside.client().post(
        "/wb/api/runs", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 422 and response.json()["error"].startswith("The request")
