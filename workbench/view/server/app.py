"""The dashboard as one ASGI application: guard, JSON routes, static files, Gradio pages.

In: a runs root. Out: an application for any ASGI server. It has no state of its own: all of it is in the run folders.
"""

import os

# Before Gradio is imported: it would otherwise send a report of every start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import warnings
from collections.abc import Iterable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.view.common import page_frame
from workbench.view.common.run_store import RunStore
from workbench.view.server import pages, routes
from workbench.view.server.guard import BODY_LIMIT, Guard

VIEW = Path(__file__).parents[1]
STATIC = (".js", ".css", ".svg", ".woff2")
"""Files of view/ that are served: pages keep their JavaScript and styles beside their Python."""


def build(
    root: Path | str, token: str | None, hosts: Iterable[str] = (), *, read_only: bool = False
) -> ASGIApp:
    """The guarded application for the runs below `root`. `token` None admits every user of this machine; with
    `read_only` runs can be viewed, and nothing else."""
    store = RunStore(root)
    api = FastAPI(title="GRPO workbench", docs_url=None, redoc_url=None, openapi_url=None)
    api.include_router(routes.router(store), prefix="/wb/api")
    api.mount("/wb/static", _Static(directory=VIEW))
    with warnings.catch_warnings():
        # Gradio warns about server-side rendering on every app with several pages, also when it is off.
        warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)
        gr.mount_gradio_app(
            api,
            pages.build(store, read_only),
            path="/",
            theme=page_frame.theme(),
            head=page_frame.head(pages.PAGES) + (page_frame.READ_ONLY if read_only else ""),
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            mcp_server=False,
            show_error=True,
            max_file_size=BODY_LIMIT,
            allowed_paths=[],
            blocked_paths=[str(store.root)],
            enable_monitoring=False,
            pwa=False,
        )
    return Guard(api if read_only else _FirstVisit(api, store), token, hosts, read_only=read_only)


class _FirstVisit:
    """Redirects `/` to New run while there are no runs."""

    def __init__(self, app: ASGIApp, store: RunStore) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks_for_live = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
        if asks_for_live and b"run=" not in scope["query_string"] and self._store.empty():
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse("/new" + (f"?{query}" if query else ""), status_code=307)(
                scope, receive, send
            )
            return
        await self._app(scope, receive, send)


class _Static(StaticFiles):
    """Static files that a browser revalidates each time: a new version shows at the next reload, an unchanged one costs a 304."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path.endswith(STATIC) else ("", None)

    def file_response(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "no-cache"
        return response
