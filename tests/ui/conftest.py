"""A real chromium and the real dashboard: guard, token and Gradio's pages included."""

import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

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


Serving = list[tuple[uvicorn.Server, threading.Thread]]


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """The dashboards of a module. One left running costs 2 % of a core while nobody looks, so each ends as soon as it may."""
    running: Serving = []
    yield running
    for served, _ in running:
        served.should_exit = True
    for _, thread in running:
        thread.join(5)


@pytest.fixture(autouse=True)
def only_shared_dashboards_go_on(serving: Serving) -> Iterator[None]:
    """Ends those that a test began for itself; those of its module's fixtures are there before it."""
    shared = len(serving)
    yield
    for served, _ in serving[shared:]:
        served.should_exit = True


@pytest.fixture(scope="module")
def dashboard(serving: Serving) -> Callable[[Path], Dashboard]:
    """`dashboard(root)` serves the runs below `root` until the test that asked, or the module whose fixture asked, is over."""
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
        serving.append((served, thread))
        wait_until(lambda: served.started, what="the dashboard")
        return Dashboard(address, token)

    return serve


def _profile(browser: Browser) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    return context


@pytest.fixture(scope="module")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """What the pages of a module share: the scripts that the browser has fetched and compiled. `page` drops the rest."""
    context = _profile(browser)
    context.new_page()  # stays blank; from it `page` clears what others leave
    yield context
    context.close()


@pytest.fixture
def page(profile: BrowserContext) -> Iterator[Page]:
    """A page of 1440 x 900. Fails the test when a script breaks or writes an error or warning to the console, or when a request leaves the
    machine. Refused requests are left to the tests: some provoke them."""
    with _watched(profile) as found:
        yield found
        blank, *others = profile.pages
        for one in others:
            one.close()
        profile.clear_cookies()
        everything = {"origin": "*", "storageTypes": "all"}  # the cache of scripts is none of it
        profile.new_cdp_session(blank).send("Storage.clearDataForOrigin", everything)


@pytest.fixture
def own_page(browser: Browser) -> Iterator[Page]:
    """As `page`, in a profile of its own: for tests that change more of it than can be cleared."""
    context = _profile(browser)
    with _watched(context) as found:
        yield found
        context.close()


@contextmanager
def _watched(context: BrowserContext) -> Iterator[Page]:
    found = context.new_page()
    found.set_default_timeout(60_000)
    troubles: list[str] = []
    found.on("pageerror", lambda error: troubles.append(f"script: {error}"))
    found.on(
        "console", lambda message: _is_complaint(message) and troubles.append(f"console: {message.text}")
    )
    found.on("request", lambda sent: _at_home(sent.url) or troubles.append(f"request: {sent.url[:200]}"))
    yield found
    assert troubles == []


REFUSALS = ("Failed to load resource", "frame-ancestors", "CORS policy")
"""Marks of the browser's own messages about requests that were refused."""


LEFT = "AbortError: signal is aborted without reason"
"""Gradio ends its event stream when a page is left, and says so in the console of the page that goes."""


def _is_complaint(message: ConsoleMessage) -> bool:
    return message.type in ("error", "warning") and not any(
        mark in message.text for mark in (*REFUSALS, LEFT)
    )


def _at_home(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:"))
