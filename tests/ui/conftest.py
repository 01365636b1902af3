"""A real chromium and the real dashboard: guard, token and Gradio's pages included."""

import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.helpers import wait_until
from workbench.view.server import app
from workbench.view.server import serve as server

expect.set_options(timeout=20_000)  # two cores may be shared with a run
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    # DNS as an attacker would have it: a name of theirs that leads to this machine.
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]


class Dashboard(NamedTuple):
    """A served runs root."""

    address: str
    token: str

    def url(self, path: str = "/", **query: object) -> str:
        """An address below it that carries the token, as the printed one does."""
        return f"{self.address}{path}?{urlencode({'token': self.token, **query})}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium. Without one the browser tests are not run; with CI set they fail."""
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("no chromium: install it with `apt-get install chromium`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def dashboard() -> Iterator[Callable[[Path], Dashboard]]:
    """`dashboard(root)` serves the runs below `root` until the session ends."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def serve(root: Path) -> Dashboard:
        token = secrets.token_urlsafe(16)
        listener = server.listen("127.0.0.1", 0)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        served = uvicorn.Server(
            uvicorn.Config(app.build(root, token=token), log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        running.append((served, thread))
        wait_until(lambda: served.started, what="the dashboard")
        return Dashboard(address, token)

    yield serve
    for served, thread in running:
        served.should_exit = True
        thread.join(5)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of 1440 x 900. Fails the test when a script of it breaks or a request leaves the machine."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = context.new_page()
    found.set_default_timeout(60_000)
    troubles: list[str] = []
    found.on("pageerror", lambda error: troubles.append(f"script: {error}"))
    found.on("request", lambda sent: _at_home(sent.url) or troubles.append(f"request: {sent.url[:200]}"))
    yield found
    context.close()
    assert troubles == []


def _at_home(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:"))
