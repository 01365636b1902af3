"""Checks every request to the dashboard, of all routes, Gradio's included: host name, origin, token, size, read-only.

Pure ASGI. In: a request. Out: the request, or a refusal in one sentence. The dashboard runs its owner's code by design, so access to
it is access to a shell: only this machine, only known host names, only pages of our own, only with the token.
"""

import hashlib
import hmac
import html
import json
import math
import re
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:/@?#,]+)(?::[0-9]{1,5})?")
_UNPAIRED = re.compile(r"[\ud800-\udfff]")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
API = "/wb/api/"
"""Routes that take JSON; each value in it can be kept and sent on."""
MANIFEST = "/manifest.json"
"""Browsers request it without cookies, so without the token; as this page is not an installable app, it is empty."""
BODY_LIMIT = 4 * 2**20
"""Bytes of one request. Data sets and models are named by path, never uploaded."""

# Gradio needs inline scripts and eval (its config block, templates of gr.HTML); everything that could send a completion's text to
# another machine is forbidden.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_REPLACED = frozenset(name for name, _ in HEADERS) | {
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
}


class _Refusal(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """ASGI middleware. `token` None: every user of this machine's loopback interface may use the dashboard."""

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        hosts: Iterable[str] = (),
        body_limit: int = BODY_LIMIT,
        *,
        read_only: bool = False,
    ) -> None:
        self.app = app
        self._read_only = read_only
        self._token = token
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._body_limit = body_limit
        # Cookies ignore ports: the name distinguishes two dashboards on one machine without revealing the token.
        self.cookie = "workbench-" + hashlib.sha256((token or "").encode()).hexdigest()[:8]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = _headers(scope)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            if self._token is not None:
                target = self._without_token(scope)
                if target is not None:
                    await _redirect(
                        send, target, f"{self.cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    )
                    return
                if scope["type"] == "http" and scope["path"] == MANIFEST:
                    await _empty_manifest(send)
                    return
                self._check_token(headers)
            self._check_length(headers)
            if self._read_only:
                self._check_reading(scope)
        except _Refusal as refusal:
            await _refuse(scope, receive, send, refusal)
            return
        receive = self._counted(receive)
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and API in scope["path"]:
            body, receive = await _read_body(receive)
            if problem := _problem_of(body):
                await _refuse(scope, receive, send, _Refusal(422, problem))
                return
        await self.app(scope, receive, _with_headers(send))

    def _check_host(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            raise _Refusal(
                421,
                f"This dashboard does not answer to the name {host[:80]!r}. Open it as "
                "http://127.0.0.1:PORT, or start it with --allow-host NAME.",
            )

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """A page of another site may link here, and do nothing else."""
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        site = headers.get("sec-fetch-site", "none")
        navigates = headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and (changes or not navigates):
            raise _Refusal(403, "This request came from another site's page. Nothing was done.")
        sender = headers.get("origin")
        if sender is not None and changes:
            try:
                parts = urlsplit(sender)
                own = parts.netloc.lower() == headers.get("host", "").lower()
                own = own and parts.scheme in ("http", "https")
            except ValueError:
                own = False
            if not own:
                sentence = f"This request came from {sender[:80]!r}, not from the dashboard's own page."
                raise _Refusal(403, f"{sentence} Nothing was done.")

    def _without_token(self, scope: Scope) -> str | None:
        """The URL without its token, to redirect to, where it carries the right one; None where it carries none."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if not given:
            return None
        if not self._matches(given[-1]):
            raise _Refusal(
                401,
                "This link belongs to an earlier start of the dashboard. Open the address that it printed in "
                "its terminal when it started last.",
            )
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # One leading slash: "//elsewhere" would be another site.
        path = "/" + quote(scope["path"].lstrip("/\\"))
        return path + (f"?{rest}" if rest else "")

    def _check_token(self, headers: dict[str, str]) -> None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._matches(bearer.strip()):
            return
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            morsel = None
        if morsel is not None and self._matches(morsel.value):
            return
        raise _Refusal(
            401,
            "This dashboard can run code, so it opens only with its key. Open the address that it printed in "
            "its terminal: it ends in ?token=… and is needed once per browser. Scripts send "
            "“Authorization: Bearer TOKEN”.",
        )

    def _matches(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def _check_length(self, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._body_limit:
            limit = f"{self._body_limit // 2**20} MiB"
            raise _Refusal(413, f"The request is larger than {limit}. Name files by their path instead.")

    @staticmethod
    def _check_reading(scope: Scope) -> None:
        """Everything that changes a run or executes code uses another method, Gradio's own events included."""
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            raise _Refusal(
                403,
                "This dashboard is read-only. Steer runs with the command line (workbench set, stop, resume), or start the dashboard "
                "without --read-only.",
            )

    def _counted(self, receive: Receive) -> Receive:
        """Counts bodies without a length as they arrive; past the limit the client is treated as disconnected."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return {"type": "http.disconnect"} if seen > self._body_limit else message

        return counted


def _headers(scope: Scope) -> dict[str, str]:
    """Header names to values. A header given twice is treated as an attack: the joined values match nothing."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        separator = "; " if name == "cookie" else ", "
        found[name] = f"{found[name]}{separator}{value}" if name in found else value
    return found


def _name(host: str) -> str:
    """The host part of a Host header, port removed, lower case; '' where it is not one name and at most one port."""
    found = _HOST.fullmatch(host.strip().lower())
    return found[1] if found else ""


async def _read_body(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body of a request, and a `receive` that gives it once more."""
    parts: list[bytes] = []
    message = await receive()
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
        message = await receive()
    body = b"".join(parts)
    first: list[Message] = [
        {"type": "http.request", "body": body, "more_body": False}
        if message["type"] == "http.request"
        else message
    ]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return body, again


def _problem_of(body: bytes) -> str:
    """What in a JSON body no file, database or response can hold, '' where nothing is. What is not JSON is the route's."""
    try:
        waiting = [json.loads(body)] if body.strip() else []
    except RecursionError:
        return "The request is nested too deeply."
    except ValueError:
        return ""
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            return f"The request holds {value}. Give finite numbers."
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            return "The request holds a number beyond 64 bits. Give a smaller one."
        elif isinstance(value, str) and (_UNPAIRED.search(value) or "\0" in value):
            return "The request holds a text with half a character (a lone surrogate) or a NUL. Remove it."
    return ""


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value) for name, value in message.get("headers", []) if name.lower() not in _REPLACED
            ]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return guarded


async def _redirect(send: Send, location: str, cookie: str) -> None:
    headers = [
        (b"location", location.encode("latin-1")),
        (b"set-cookie", cookie.encode("latin-1")),
        (b"content-length", b"0"),
        (b"cache-control", b"no-store"),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _empty_manifest(send: Send) -> None:
    """An empty web manifest: reveals nothing, and leaves no error in the browser's console."""
    headers = [
        (b"content-type", b"application/manifest+json"),
        (b"content-length", b"2"),
        (b"cache-control", b"no-store"),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: _Refusal) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    wants_page = "text/html" in _headers(scope).get("accept", "")
    body, kind = _page(refusal) if wants_page else (json.dumps(_problem(refusal)), "application/json")
    data = body.encode()
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(data)).encode()),
        (b"cache-control", b"no-store"),
        *HEADERS,
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _problem(refusal: _Refusal) -> dict[str, Any]:
    return {"error": str(refusal), "problems": {}}


def _page(refusal: _Refusal) -> tuple[str, str]:
    return _PAGE.format(html.escape(str(refusal))), "text/html"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>GRPO workbench</title>
<style>
:root {{ color-scheme: light dark; font: 15px/22px system-ui, sans-serif; }}
body {{ max-width: 36rem; margin: 18vh auto; padding: 0 20px; overflow-wrap: anywhere;
  background: light-dark(#fafaf8, #111315); color: light-dark(#1a1c1f, #ecedee); }}
h1 {{ font-size: 20px; }}
</style>
<h1>GRPO workbench</h1><p>{}</p></html>
"""
