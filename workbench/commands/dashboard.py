"""The command app: open the dashboard."""

import threading
import webbrowser
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from workbench.commands.options import DEFAULT_ROOT, Root


def dashboard(
    *,
    runs: Root = DEFAULT_ROOT,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, Parameter(help="Port; 7860 or the next free one.")] = None,
    token: Annotated[str | None, Parameter(help="This token instead of a random one.")] = None,
    no_token: Annotated[bool, Parameter(negative="", help="No token; only on this machine.")] = False,
    allow_host: Annotated[
        list[str] | None, Parameter(negative="", help="Another name that the dashboard answers to.")
    ] = None,
    read_only: Annotated[bool, Parameter(negative="", help="Look at runs; start and steer none.")] = False,
    open: Annotated[bool, Parameter(negative="", help="Open a browser.")] = False,
) -> int:
    """Open the dashboard."""
    # Gradio takes seconds to import; no other command pays for it.
    from workbench.view.server import serve  # noqa: PLC0415

    serve.serve(
        runs,
        host=host,
        port=port,
        token=token,
        use_token=not no_token,
        allow_hosts=allow_host or [],
        read_only=read_only,
        announce=_announce(open),
    )
    return 0


def _announce(open_browser: bool) -> Callable[[str], None]:
    """Prints what the server announces, and opens its address where wanted."""

    def announce(text: str) -> None:
        print(text, flush=True)
        address = next((word for word in text.split() if word.startswith("http://")), None)
        if open_browser and address:
            threading.Timer(1.0, webbrowser.open, [address]).start()

    return announce
